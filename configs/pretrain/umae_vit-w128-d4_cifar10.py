"""U-MAE on CIFAR-10: MAE with a term that keeps the class tokens of different images apart.

Command:  make pretrain CONFIG=configs/pretrain/umae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 47.1, linear probe 53.2 (one seed).

Source: Zhang, Wang, Wang, "How Mask Matters", NeurIPS 2022; weight 0.01 as there.
"""

_base_ = "mae_vit-w128-d4_cifar10.py"
name = "umae_vit-w128-d4_cifar10"
method = "U-MAE"
auxiliary = dict(type="uniformity", weight=0.01)
