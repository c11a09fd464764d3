"""UperNet on the embedded textures, written as image and annotation files: background and 8 textures, 32 pixels.

Command:  make bench-seg (backbones of `make demo` and `make pretrain`, and random ones)
Hardware: 1 core of an AMD EPYC. Time: 95 processor seconds for a backbone of width 128 and depth 4.
"""

_base_ = "../_base_/upernet_small.py"
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
optim = dict(lr=3e-3, layer_decay=0.5)
train = dict(iterations=450, decay="linear", amp="none", log_interval=20, checkpoint_interval=150)
