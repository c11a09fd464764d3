"""A control that sees the labels without learning a mask: MAE and a classifier, trained jointly.

Command:  make pretrain CONFIG=configs/pretrain/mae-joint-labels_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 7 processor minutes, about that of the MAE config.
Expected: k-NN 59.2, linear probe 60.9 (one seed).

The question: would MAE gain as much from a classification loss? The weight 0.1 is ours and was not tuned.
"""

_base_ = "mae_vit-w128-d4_cifar10.py"
name = "mae-joint-labels_vit-w128-d4_cifar10"
method = "MAE (joint classification)"
auxiliary = dict(type="classification", weight=0.1)
