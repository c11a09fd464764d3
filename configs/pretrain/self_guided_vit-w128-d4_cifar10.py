"""Self-guided MAE on CIFAR-10: after a tenth of the run, patches in the object's cluster of encoder features go first.

Command:  make pretrain CONFIG=configs/pretrain/self_guided_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 13 processor minutes, 2.0 times that of the MAE config.
Expected: k-NN 48.0, linear probe 52.5 (one seed).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "self_guided_vit-w128-d4_cifar10"
method = "Self-guided MAE"
mask = dict(type="self_guided", ratio=0.75, start=0.1, hint=0.1, decay=0.99)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
