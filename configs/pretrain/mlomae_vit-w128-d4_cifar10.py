"""MLO-MAE with the paper's linear feedback on CIFAR-10; differs from the MAE config in the mask alone.

Command:  make pretrain CONFIG=configs/pretrain/mlomae_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 core of an AMD EPYC. Time: 23 processor minutes.
Expected: k-NN 46.3 ± 0.3, linear probe 50.5 ± 0.7 (3 seeds, frozen encoder, averaged tokens; JPEG copy).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py", "../_base_/mlomae.py"]
name = "mlomae_vit-w128-d4_cifar10"
method = "MLO-MAE"
data = dict(feedback_batch_size=64)
optim = dict(theta=dict(lr=1e-3), omega=dict(lr=3e-3), phi=dict(lr=5e-4))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
