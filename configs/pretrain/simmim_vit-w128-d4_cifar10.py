"""MAE with SimMIM's masks on CIFAR-10: cells of 2x2 patches are removed as a whole.

Command:  make pretrain CONFIG=configs/pretrain/simmim_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 44.9, linear probe 51.4 (one seed).
The mask alone, with MAE's encoder, decoder and ratio; SimMIM's own ratio: mask.ratio=0.6.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "simmim_vit-w128-d4_cifar10"
method = "MAE (SimMIM masks)"
mask = dict(type="simmim", ratio=0.75, cell=2)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
