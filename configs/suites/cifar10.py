"""Random against learned masks on CIFAR-10 (no oracle there: headroom is unknown).

Command:  make suite SUITE=configs/suites/cifar10.py DATA=cifar10=path/to/cifar10
Hardware: 2 cores of an AMD EPYC, two runs at a time with one thread each. Time: about 30 minutes.
Expected: results/pretrain.md, results/differences.md: no difference on averaged tokens.
"""

name = "cifar10"
seeds = [0, 1]
_mae = "configs/pretrain/mae_vit-w128-d4_cifar10.py"
_pooled = "configs/pretrain/mlomae-pooled_vit-w128-d4_cifar10.py"
methods = [
    dict(method="MAE", config=_mae),
    dict(method="MLO-MAE (nca, mask pooling)", config=_pooled),
    dict(method="frozen at random", config=_pooled, options={"optim.phi.lr": 0.0, "optim.phi.weight_decay": 0.0}),
]
same_time = "MLO-MAE (nca, mask pooling)"
