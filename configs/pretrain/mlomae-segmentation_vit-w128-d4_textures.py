"""MLO-MAE whose feedback is semantic segmentation, on the embedded textures; the objects of an image differ in class.

Command:  make pretrain CONFIG=configs/pretrain/mlomae-segmentation_vit-w128-d4_textures.py
Hardware: 1 core of an AMD EPYC, no data to download. Time: 7 processor minutes.
Expected: k-NN 43.5, linear probe 53.1 (one seed).
A linear head on every patch token predicts the classes of the patch's pixels (background and 8 textures).
"""

_base_ = ["../_base_/vit-w128-d4_32px.py", "../_base_/textures.py", "../_base_/mlomae.py"]
name = "mlomae-segmentation_vit-w128-d4_textures"
method = "MLO-MAE (segmentation)"
feedback = dict(_delete_=True, type="segmentation")
data = dict(
    train=dict(mixed=True),
    eval=dict(mixed=True),
    feedback_augment=dict(type="PadCropFlip", padding=0),
)
optim = dict(theta=dict(lr=2e-3), omega=dict(lr=3e-3), phi=dict(lr=5e-4))
train = dict(outer_iterations=500, log_interval=50, picture_interval=250, checkpoint_interval=250)
