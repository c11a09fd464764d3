"""MAE with random masks on Tiny-ImageNet (measured here: a subset of 5,000 training images).

Command:  make pretrain CONFIG=configs/pretrain/mae_vit-w128-d4_tiny-imagenet.py DATA=path/to/tiny-imagenet-200
Hardware: 1 core of an AMD EPYC. Time: 2.4 processor minutes.
Expected: k-NN 3.6 ± 0.4, linear probe 7.7 ± 0.1 (2 seeds, frozen encoder, averaged tokens, chance 0.5 %).
"""

_base_ = ["../_base_/vit-w128-d4_64px.py", "../_base_/tiny-imagenet.py", "../_base_/mae.py"]
name = "mae_vit-w128-d4_tiny-imagenet"
method = "MAE"
optim = dict(theta=dict(lr=2e-3))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
