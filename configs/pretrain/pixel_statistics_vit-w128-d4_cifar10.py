"""MAE on CIFAR-10 that removes patches with probability proportional to the variance of their pixels.

Command:  make pretrain CONFIG=configs/pretrain/pixel_statistics_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 45.0, linear probe 50.9 (one seed).
Other controls: mask.prefer=low, mask.statistic=edges, mask.sampling=topk.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "pixel_statistics_vit-w128-d4_cifar10"
method = "MAE (masks by variance)"
mask = dict(type="pixel_statistics", ratio=0.75, statistic="variance", prefer="high", strength=1.0)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
