"""AutoMAE on CIFAR-10: a generator draws masks from attention; a discriminator pushes them towards rectangles.

Command:  make pretrain CONFIG=configs/pretrain/automae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 12 processor minutes, 1.9 times that of the MAE config.
Expected: k-NN 47.7, linear probe 53.7 (one seed).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "automae_vit-w128-d4_cifar10"
method = "AutoMAE"
mask = dict(type="automae", ratio=0.75, adversarial=0.2, decay=0.99)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
