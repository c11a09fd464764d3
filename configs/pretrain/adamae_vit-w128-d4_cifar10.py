"""AdaMAE on CIFAR-10: a network learns to show what is reconstructed badly, by REINFORCE.

Command:  make pretrain CONFIG=configs/pretrain/adamae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core. Time: about 1.2 times that of the MAE config, 8 processor minutes (from 20 steps).
Expected: not measured yet.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "adamae_vit-w128-d4_cifar10"
method = "AdaMAE"
mask = dict(type="adamae", ratio=0.75, weight=1e-4, hidden=64)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
