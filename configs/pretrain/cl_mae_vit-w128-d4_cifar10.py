"""CL-MAE on CIFAR-10: a network chooses masks that are easy for the autoencoder at first and hard at the end.

Command:  make pretrain CONFIG=configs/pretrain/cl_mae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 25 processor minutes, 3.9 times that of the MAE config.
Expected: k-NN 44.9, linear probe 50.0 (one seed).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "cl_mae_vit-w128-d4_cifar10"
method = "CL-MAE"
mask = dict(type="cl_mae", ratio=0.75, hidden=64, depth=2)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
