"""AMT on CIFAR-10: from a tenth of the run on, patches are drawn by the attention of a snapshot of the encoder.

Command:  make pretrain CONFIG=configs/pretrain/amt_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 11 processor minutes, 1.7 times that of the MAE config.
Expected: k-NN 46.2, linear probe 51.0 (one seed).
With thrown-away patches (the authors' other setting): mask.ratio=0.45 mask.throw=0.4.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "amt_vit-w128-d4_cifar10"
method = "AMT"
mask = dict(type="amt", ratio=0.75, start=0.1, every=0.1, throw=0.0)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
