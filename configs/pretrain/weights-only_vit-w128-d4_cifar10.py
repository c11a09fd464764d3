"""A control of MLO-MAE: its scores weigh the errors of uniformly random masks.

Command:  make pretrain CONFIG=configs/pretrain/weights-only_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core. Time: 22 processor minutes, by a trial of 20 steps. Expected: not measured yet.
"""

_base_ = "mlomae_vit-w128-d4_cifar10.py"
name = "weights-only_vit-w128-d4_cifar10"
method = "MLO-MAE (weights only)"
mask = dict(sampling="random")
