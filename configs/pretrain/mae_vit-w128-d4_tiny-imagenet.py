"""MAE with random masks on Tiny-ImageNet (measured here: a subset of 5,000 training images).

Command:  make pretrain CONFIG=configs/pretrain/mae_vit-w128-d4_tiny-imagenet.py DATA=path/to/tiny-imagenet-200
Hardware: 1 core of an AMD EPYC. Time and expected metrics: see results/pretrain.md.
"""

_base_ = ["../_base_/vit-w128-d4_64px.py", "../_base_/tiny-imagenet.py", "../_base_/mae.py"]
name = "mae_vit-w128-d4_tiny-imagenet"
method = "MAE"
optim = dict(theta=dict(lr=2e-3))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
