"""HPM on CIFAR-10: a second decoder predicts which patches are hard; a growing share of the removed ones are hard.

Command:  make pretrain CONFIG=configs/pretrain/hpm_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 15 processor minutes, twice that of the MAE config.
Expected: k-NN 47.9, linear probe 53.6 (one seed).
The EMA decays are below the paper's 0.999 and 0.9999, which average over 1,000 iterations or more; here 10 and 33.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py"]
name = "hpm_vit-w128-d4_cifar10"
method = "HPM"
mask = dict(type="hpm", ratio=0.75, hard=0.5, decay=0.9, decay_end=0.97)
levels = dict(lower_steps=2)
optim = dict(theta=dict(lr=1e-3))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
