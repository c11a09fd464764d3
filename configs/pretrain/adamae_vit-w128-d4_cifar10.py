"""AdaMAE on CIFAR-10: a network learns, by REINFORCE, to keep visible the patches that are reconstructed badly.

Command:  make pretrain CONFIG=configs/pretrain/adamae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 8 processor minutes, 1.3 times that of the MAE config.
Expected: k-NN 46.5, linear probe 53.3 (one seed).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "adamae_vit-w128-d4_cifar10"
method = "AdaMAE"
mask = dict(type="adamae", ratio=0.75, weight=1e-4, hidden=64)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
