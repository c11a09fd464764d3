"""Linear segmentation of the embedded textures on frozen features: background and 8 textures, 32 pixels.

Command:  make bench TASK=linear_segmentation (backbones of `make demo` and `make pretrain`, and random ones)
Hardware: 1 core of an AMD EPYC. Time: about 30 processor seconds for a backbone of width 128 and depth 4.
"""

_base_ = "../_base_/linear_segmentation.py"
name = "linear_segmentation_textures"
backbone = dict(img_size=32)
data = dict(
    train=dict(type="scene_folder", root="work_dirs/data/textures_scenes", split="training"),
    test=dict(type="scene_folder", root="work_dirs/data/textures_scenes", split="validation"),
    augment=[dict(type="RandomFlip", prob=0.5)],
    evaluate=[],
    batch_size=16,
    num_workers=0,
)
train = dict(iterations=300, decay="cosine", amp="none", log_interval=50, checkpoint_interval=150)
