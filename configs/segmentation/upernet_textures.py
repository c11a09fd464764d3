"""UperNet on the embedded textures, written as image and annotation files: background and 8 textures, 32 pixels.

Command:  make bench-seg (backbones of `make demo` and `make pretrain`, and random ones)
Hardware: 1 core of an AMD EPYC. Time: 85 processor seconds for a backbone of width 128 and depth 4.
mIoU on validation images: 75.2 (random weights, seed 1), 78.4 and 74.5 (the MAE of `make demo`, seeds 1 and 3). The
convolutions of the head learn textures by themselves: pretraining gains less than seeds differ.
"""

_base_ = "../_base_/upernet_small.py"
# The background, two thirds of the pixels, counts a quarter: in so few steps nothing else would be predicted.
_loss = dict(loss_decode=dict(class_weight=[0.25, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
model = dict(decode_head=_loss, auxiliary_head=_loss)
name = "upernet_textures"
backbone = dict(img_size=32)
data = dict(
    train=dict(type="scene_folder", root="work_dirs/data/textures_scenes", split="training"),
    test=dict(type="scene_folder", root="work_dirs/data/textures_scenes", split="validation"),
    augment=[dict(type="RandomFlip", prob=0.5)],
    evaluate=[],
    batch_size=8,
    num_workers=0,
)
optim = dict(lr=3e-3)
train = dict(iterations=450, decay="linear", amp="none", log_interval=20, checkpoint_interval=150)
