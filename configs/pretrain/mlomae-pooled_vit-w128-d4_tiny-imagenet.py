"""MLO-MAE with mask pooling on Tiny-ImageNet (here: a subset of 5,000 training images).

Command:  make pretrain CONFIG=configs/pretrain/mlomae-pooled_vit-w128-d4_tiny-imagenet.py DATA=tiny-imagenet-200
Hardware: 1 core of an AMD EPYC. Time: 5.8 processor minutes.
Expected: k-NN 3.5 ± 0.3, linear probe 6.4 ± 0.4 (2 seeds, frozen encoder, averaged tokens, chance 0.5 %).
No better than MAE (3.6, 7.7).

200 classes with 256 images a feedback batch: for about a quarter of the upper images the head batch has no
image of their class; they are left out of the feedback's mean.
"""

_base_ = ["../_base_/vit-w128-d4_64px.py", "../_base_/tiny-imagenet.py", "../_base_/mlomae_pooled.py"]
name = "mlomae-pooled_vit-w128-d4_tiny-imagenet"
method = "MLO-MAE (nca, mask pooling)"
data = dict(feedback_augment=dict(type="PadCropFlip", padding=0), feedback_batch_size=256)
optim = dict(theta=dict(lr=2e-3), phi=dict(lr=3e-3, betas=(0.9, 0.99)))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
