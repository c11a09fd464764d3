"""MAE with random masks on CIFAR-10, a small ViT that two CPU cores can train.

Command:  make pretrain CONFIG=configs/pretrain/mae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 core of an AMD EPYC. Time: 6.4 processor minutes.
Expected: k-NN 47.3 ± 1.4, linear probe 52.9 ± 0.3 (3 seeds, frozen encoder, averaged tokens; JPEG copy).
For the processor time of mlomae_vit-w128-d4_cifar10: train.outer_iterations=2829 (k-NN 49.2, linear probe 55.8; one
seed, by an earlier version).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py", "../_base_/mae.py"]
name = "mae_vit-w128-d4_cifar10"
method = "MAE"
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
