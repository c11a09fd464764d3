"""A control of MLO-MAE with mask pooling: its scores choose the masks but do not weight the errors of stage I.

Command:  make pretrain CONFIG=configs/pretrain/pooled-masks-only_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 9 processor minutes, 1.4 times that of the MAE config.
Expected: k-NN 45.4, linear probe 50.3 (one seed).

The reference does the opposite: uniform masks, and σ as the weight of a patch's error. Here masks are the noisy top-k
of σ and all errors have the same weight.
"""

_base_ = "mlomae-pooled_vit-w128-d4_cifar10.py"
name = "pooled-masks-only_vit-w128-d4_cifar10"
method = "MLO-MAE (nca, mask pooling, masks only)"
mask = dict(sampling="gumbel_topk", weighting="gradient")
