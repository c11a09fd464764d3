"""MLO-MAE with mask pooling on the embedded textures; differs from the MAE config in the weights of patches alone.

Command:  make pretrain CONFIG=configs/pretrain/mlomae-pooled_vit-w128-d4_textures.py
Hardware: 1 core of an AMD EPYC, no data to download. Time: 2.9 processor minutes.
Expected: k-NN 76.3 ± 2.0, linear probe 91.1 ± 0.7 (5 seeds, frozen encoder, patch tokens averaged, chance 12.5 %).
Four fifths of what the oracle gains over random masks (results/headroom.md).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/textures.py", "../_base_/mlomae_pooled.py"]
name = "mlomae-pooled_vit-w128-d4_textures"
method = "MLO-MAE (nca, mask pooling)"
data = dict(feedback_augment=dict(type="PadCropFlip", padding=0), feedback_batch_size=64)
optim = dict(theta=dict(lr=2e-3), phi=dict(lr=3e-3, betas=(0.9, 0.99)))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
