"""UperNet on the embedded textures, written as image and annotation files: background and 8 textures, 32 pixels.

Command:  make bench-seg (backbones of `make demo` and `make pretrain`, and random ones)
Hardware: 1 core of an Intel Xeon. Time: 35 processor seconds for a backbone of width 128 and depth 4.
Expected: mIoU 64.2 from the MAE of `make demo` (59.8 to 67.6), 57.7 from random weights (52.0 to 65.2): means of
seeds 1 to 5 on 500 validation images. Pretraining is ahead with each of them, by 0.2 to 14.
"""

_base_ = "../_base_/upernet_small.py"
# The background, two thirds of the pixels, counts a quarter: in so few steps nothing else would be predicted. A head of
# 16 channels on the grid of patches leaves the textures to the backbone. A wider one, or transposed convolutions before
# it, learn them by themselves, and random weights do as well as pretrained ones.
_head = dict(channels=16, loss_decode=dict(class_weight=[0.25, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
model = dict(neck=None, decode_head=_head, auxiliary_head=_head)
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
optim = dict(lr=3e-3, layer_decay=1.0)
train = dict(iterations=450, decay="linear", amp="none", log_interval=20, checkpoint_interval=150)
