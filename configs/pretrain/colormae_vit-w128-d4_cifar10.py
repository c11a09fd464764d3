"""ColorMAE on CIFAR-10: masks are thresholded green noise, whose blobs are of one size.

Command:  make pretrain CONFIG=configs/pretrain/colormae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 47.6, linear probe 53.7 (one seed).
Other noise: mask.colour=blue, red or purple.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "colormae_vit-w128-d4_cifar10"
method = "ColorMAE (green)"
mask = dict(type="colormae", ratio=0.75, colour="green", narrow=0.5, wide=2.0)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
