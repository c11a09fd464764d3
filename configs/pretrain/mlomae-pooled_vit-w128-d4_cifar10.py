"""MLO-MAE with mask pooling on CIFAR-10; differs from the MAE config in the weights of patches alone.

Command:  make pretrain CONFIG=configs/pretrain/mlomae-pooled_vit-w128-d4_cifar10.py DATA=path/to/cifar10
Hardware: 1 core of an AMD EPYC. Time: 8.8 processor minutes.
Expected: k-NN 47.1 ± 0.9, linear probe 53.0 ± 0.4 (3 seeds, frozen encoder, averaged tokens; JPEG copy).
No better than MAE (47.3 ± 1.4, 52.9 ± 0.3).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/cifar10.py", "../_base_/mlomae_pooled.py"]
name = "mlomae-pooled_vit-w128-d4_cifar10"
method = "MLO-MAE (nca, mask pooling)"
data = dict(feedback_augment=dict(type="PadCropFlip", padding=0), feedback_batch_size=128)
optim = dict(theta=dict(lr=1e-3), phi=dict(lr=3e-3, betas=(0.9, 0.99)))
train = dict(outer_iterations=800, log_interval=50, picture_interval=250, checkpoint_interval=100)
