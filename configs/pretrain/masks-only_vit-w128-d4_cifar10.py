"""A control of MLO-MAE: its scores choose the masks but do not weight the errors of stage I.

Command:  make pretrain CONFIG=configs/pretrain/masks-only_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core. Time: 22 processor minutes, by a trial of 20 steps. Expected: not measured yet.

An error's weight has the value 1 and the derivative of σ: stage I is MAE's, the hypergradient that of MLO-MAE.
"""

_base_ = "mlomae_vit-w128-d4_cifar10.py"
name = "masks-only_vit-w128-d4_cifar10"
method = "MLO-MAE (masks only)"
mask = dict(weighting="gradient")
