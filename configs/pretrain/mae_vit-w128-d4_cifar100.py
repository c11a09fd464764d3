"""MAE with random masks on CIFAR-100, a small ViT that two CPU cores can train.

Command:  make pretrain CONFIG=configs/pretrain/mae_vit-w128-d4_cifar100.py DATA=path/to/cifar100
Hardware: 1 CPU core is enough. Time and expected: not measured yet.
Equal wall-clock: add OPTIONS="--cfg-options train.outer_iterations=N" with the N of results/README.md.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar100.py", "../_base_/mae.py"]
name = "mae_vit-w128-d4_cifar100"
method = "MAE"
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
