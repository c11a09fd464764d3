"""A control of MLO-MAE with mask pooling: the labels that the feedback sees are shuffled.

Command:  make pretrain CONFIG=configs/pretrain/shuffled-labels_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 9 processor minutes, 1.4 times that of the MAE config.
Expected: k-NN 46.9, linear probe 52.3 (one seed).

The question: does the effect come from the labels, or from images and optimisation alone? Images, split and class
counts are those of the reference; k-NN and linear probe are fitted on the true labels. The log warns that the feedback
stays at chance, as it should.
"""

_base_ = "mlomae-pooled_vit-w128-d4_cifar10.py"
name = "shuffled-labels_vit-w128-d4_cifar10"
method = "MLO-MAE (nca, mask pooling, shuffled labels)"
data = dict(shuffle_labels=0)
