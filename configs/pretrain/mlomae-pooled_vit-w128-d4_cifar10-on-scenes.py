"""MLO-MAE with mask pooling on CIFAR-10 images at random places of photographs.

Command:  make suite SUITE=configs/suites/map_50.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/tiny-imagenet"
Hardware: 1 CPU core. Time: 9 to 11 processor minutes.
Expected: results/headroom_parts.md.
"""

_base_ = ["../_base_/vit-w128-d4_64px.py", "../_base_/cifar10-on-scenes.py", "../_base_/mlomae_pooled.py"]
name = "mlomae-pooled_vit-w128-d4_cifar10-on-scenes"
method = "MLO-MAE (nca, mask pooling)"
optim = dict(theta=dict(lr=2e-3, warmup=0.2), phi=dict(lr=3e-3, betas=(0.9, 0.99)))
train = dict(outer_iterations=1200, log_interval=50, picture_interval=400, checkpoint_interval=400)
