"""A control of MLO-MAE with mask pooling: its masking network stays at its random initial values.

Command:  make pretrain CONFIG=configs/pretrain/frozen_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 CPU core of an AMD EPYC. Time: 8.8 processor minutes.
Expected: k-NN 47.4 ± 0.1, linear probe 53.6 ± 0.2 (2 seeds).

The question: does it matter what the network learns, or only that errors are weighted? The only difference is that
its updates are zero; the same run as the row "frozen at random" of configs/suites/cifar10.py.
"""

_base_ = "mlomae-pooled_vit-w128-d4_cifar10.py"
name = "frozen_vit-w128-d4_cifar10"
method = "frozen at random"
optim = dict(phi=dict(lr=0.0, weight_decay=0.0))
