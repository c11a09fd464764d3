"""AttMask on CIFAR-10: removes what the class token of the encoder's moving average attends to, except for a few hints.

Command:  make pretrain CONFIG=configs/pretrain/attmask_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 11 processor minutes, 1.8 times that of the MAE config.
Expected: k-NN 44.1, linear probe 50.5 (one seed).
Without hints: mask.variant=high; the control: mask.variant=low; other teachers: mask.teacher=timm:NAME:pretrained.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "attmask_vit-w128-d4_cifar10"
method = "AttMask (hint)"
mask = dict(type="attmask", ratio=0.75, variant="hint", show_max=0.1, decay=0.99)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
