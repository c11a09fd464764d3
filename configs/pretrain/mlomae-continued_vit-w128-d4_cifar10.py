"""Continued pretraining: MLO-MAE with mask pooling from the weights of a finished MAE.

Command:  make pretrain CONFIG=configs/pretrain/mlomae-continued_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 10 processor minutes, 1.5 times that of the MAE config.
Expected: k-NN 49.1, linear probe 54.5 (one seed).

First:    make pretrain CONFIG=configs/pretrain/mae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Encoder and decoder start from init_from; optimizers, schedules and the masking network start afresh. Any MAE of this
size will do, also in the official or the timm layout. The control is MAE, continued as long from the same file:
CONFIG=configs/pretrain/mae_vit-w128-d4_cifar10.py OPTIONS="--cfg-options init_from=... name=mae-continued".
"""

_base_ = "mlomae-pooled_vit-w128-d4_cifar10.py"
name = "mlomae-continued_vit-w128-d4_cifar10"
method = "MLO-MAE (nca, mask pooling, from MAE)"
init_from = "work_dirs/mae_vit-w128-d4_cifar10_seed0/checkpoints/iter_800.pth"
