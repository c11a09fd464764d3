"""How much of a learned mask's effect is due to the mask? Every control and its reference, on CIFAR-10.

Command:  make suite SUITE=configs/suites/cifar10_controls.py DATA=cifar10=path/to/cifar10
Hardware: 2 CPU cores, two runs at a time with one thread each. Time: about 2.5 hours.
Expected: results/README.md (one seed).

All rows see the same images in the same order; records are shared with configs/suites/cifar10.py. ``same_time``
adds the row of equal processor time: MAE, for as long as the reference takes. MAE fine-tuned on the labels is not a
pretraining: configs/classification/intermediate_cifar10.py. Continued pretraining needs a finished MAE of the same
seed: configs/pretrain/mlomae-continued_vit-w128-d4_cifar10.py.
"""

name = "cifar10"
seeds = [0]
_at = "configs/pretrain/{}_vit-w128-d4_cifar10.py".format
methods = [
    dict(method="MAE", config=_at("mae")),
    dict(method="MLO-MAE (nca, mask pooling)", config=_at("mlomae-pooled")),
    dict(method="frozen at random", config=_at("frozen")),
    dict(method="MLO-MAE (nca, mask pooling, shuffled labels)", config=_at("shuffled-labels")),
    dict(method="MLO-MAE (nca, mask pooling, masks only)", config=_at("pooled-masks-only")),
    dict(method="MLO-MAE", config=_at("mlomae")),
    dict(method="MLO-MAE (masks only)", config=_at("masks-only")),
    dict(method="MLO-MAE (weights only)", config=_at("weights-only")),
    dict(method="BLO-MAE", config=_at("blo-mae")),
    dict(method="MAE (joint classification)", config=_at("mae-joint-labels")),
    dict(method="U-MAE", config=_at("umae")),
]
same_time = "MLO-MAE (nca, mask pooling)"
