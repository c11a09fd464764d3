"""SemMAE on CIFAR-10: first a share of the patches in each of six feature clusters is removed, later whole clusters.

Command:  make pretrain CONFIG=configs/pretrain/semmae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 13 processor minutes, 2.0 times that of the MAE config.
Expected: k-NN 47.9, linear probe 53.1 (one seed).
Parts from other features: mask.teacher=timm:NAME:pretrained (with mask.teacher_size if its patches are large).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "semmae_vit-w128-d4_cifar10"
method = "SemMAE (clusters)"
mask = dict(type="semmae", ratio=0.75, parts=6, decay=0.99)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
