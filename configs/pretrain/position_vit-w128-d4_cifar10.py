"""MAE with random masks on CIFAR-10 whose errors in the middle of every image weigh 5 times those at its edges.

Command:  make pretrain CONFIG=configs/pretrain/position_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core. Time: that of the MAE config.
Expected: not measured.
The rival of every mask that looks at the image: it needs no labels and costs nothing.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "position_vit-w128-d4_cifar10"
method = "MAE (weight by position)"
mask = dict(type="position", ratio=0.75, weight=5.0, area=0.5)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
