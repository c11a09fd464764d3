"""ADIOS on CIFAR-10: an adversary learns to remove the patches that the visible ones predict worst.

Command:  make pretrain CONFIG=configs/pretrain/adios_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 45.9, linear probe 52.2 (one seed).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "adios_vit-w128-d4_cifar10"
method = "ADIOS (for MAE)"
mask = dict(type="adios", ratio=0.75, masks=6, alpha=1.0)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
