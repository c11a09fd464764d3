"""A control of MLO-MAE with mask pooling: the labels that the feedback sees are shuffled.

Command:  make pretrain CONFIG=configs/pretrain/shuffled-labels_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core. Time: 8.4 processor minutes, by a trial of 20 steps. Expected: not measured yet.

The question: does what is learned come from the labels, or from images and optimisation alone? Images, split and class
counts are those of the reference; k-NN and linear probe are fitted on the true labels. The log warns that the feedback
stays at chance: it must.
"""

_base_ = "mlomae-pooled_vit-w128-d4_cifar10.py"
name = "shuffled-labels_vit-w128-d4_cifar10"
method = "MLO-MAE (nca, mask pooling, shuffled labels)"
data = dict(shuffle_labels=0)
