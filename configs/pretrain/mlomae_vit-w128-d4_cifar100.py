"""MLO-MAE with the paper's linear feedback on CIFAR-100; differs from the MAE config in the mask alone.

Command:  make pretrain CONFIG=configs/pretrain/mlomae_vit-w128-d4_cifar100.py DATA=path/to/cifar100
Hardware: 1 CPU core. Time: about that of the CIFAR-10 config, 23 processor minutes. Expected: not measured yet.
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar100.py", "../_base_/mlomae.py"]
name = "mlomae_vit-w128-d4_cifar100"
method = "MLO-MAE"
data = dict(feedback_batch_size=64)
optim = dict(theta=dict(lr=1e-3), omega=dict(lr=3e-3), phi=dict(lr=5e-4))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
