"""Random against learned masks on Tiny-ImageNet or a subset of it (no oracle there: headroom is unknown).

Command:  make suite SUITE=configs/suites/tiny-imagenet.py DATA=tiny_imagenet=path/to/tiny-imagenet-200
Hardware: 2 cores of an AMD EPYC, two runs at a time with one thread each. Time: about 15 minutes for 5,000 images.
Expected: results/pretrain.md, results/differences.md: no difference on averaged tokens.
"""

name = "tiny-imagenet"
seeds = [0, 1]
_mae = "configs/pretrain/mae_vit-w128-d4_tiny-imagenet.py"
_pooled = "configs/pretrain/mlomae-pooled_vit-w128-d4_tiny-imagenet.py"
methods = [
    dict(method="MAE", config=_mae),
    dict(method="MLO-MAE (nca, mask pooling)", config=_pooled),
    dict(method="frozen at random", config=_pooled, options={"optim.phi.lr": 0.0, "optim.phi.weight_decay": 0.0}),
]
same_time = "MLO-MAE (nca, mask pooling)"
