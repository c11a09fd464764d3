"""MAE with block masks (BEiT) on CIFAR-10: contiguous regions are removed, the centre more often than the corners.

Command:  make pretrain CONFIG=configs/pretrain/block_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 46.5, linear probe 52.6 (one seed).
The block-wise baseline of one visible square: mask.variant=square.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "block_vit-w128-d4_cifar10"
method = "MAE (block masks)"
mask = dict(type="block", ratio=0.75, variant="beit", smallest=0.08, aspect=0.3)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
