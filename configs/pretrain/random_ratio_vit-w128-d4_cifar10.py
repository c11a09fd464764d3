"""R2MAE on CIFAR-10: random masks whose ratio is drawn for every batch.

Command:  make pretrain CONFIG=configs/pretrain/random_ratio_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 47.0, linear probe 53.4 (one seed).
The mean ratio is MAE's; mask.ratio applies to pictures and to the log.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "random_ratio_vit-w128-d4_cifar10"
method = "R2MAE"
mask = dict(type="random_ratio", ratio=0.75, low=0.6, high=0.9)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
