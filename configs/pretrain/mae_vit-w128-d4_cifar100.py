"""MAE with random masks on CIFAR-100, a small ViT that two CPU cores can train.

Command:  make pretrain CONFIG=configs/pretrain/mae_vit-w128-d4_cifar100.py DATA=path/to/cifar100
Hardware: 1 CPU core. Time: about that of the CIFAR-10 config, 7 processor minutes. Expected: not measured yet.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar100.py", "../_base_/mae.py"]
name = "mae_vit-w128-d4_cifar100"
method = "MAE"
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
