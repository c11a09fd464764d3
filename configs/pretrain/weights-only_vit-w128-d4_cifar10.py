"""A control of MLO-MAE: its scores weight the errors under uniformly random masks.

Command:  make pretrain CONFIG=configs/pretrain/weights-only_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core. Time: 22 processor minutes, extrapolated from 20 steps. Expected: not measured yet.
"""

_base_ = "mlomae_vit-w128-d4_cifar10.py"
name = "weights-only_vit-w128-d4_cifar10"
method = "MLO-MAE (weights only)"
mask = dict(sampling="random")
