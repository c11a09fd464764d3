"""Linear segmentation of CamVid at a third of its size on frozen features: 96x96 crops, 11 classes, SegNet's split.

Command:  make bench TASK=linear_segmentation CONFIG=configs/linear_segmentation/linear_camvid_small.py \\
          CKPT=path/to/backbone DATA=path/to/camvid
Hardware: 1 core of an AMD EPYC. Time, metric: not measured.
"""

_base_ = "../_base_/linear_segmentation.py"
name = "linear_segmentation_camvid_small"
backbone = dict(img_size=96)
data = dict(
    train=dict(type="camvid", root="data/camvid", split="training"),
    test=dict(type="camvid", root="data/camvid", split="test"),
    augment=[
        dict(type="RandomResize", scale=(160, 120), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(96, 96), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
    ],
    evaluate=[dict(type="Resize", scale=(160, 120), keep_ratio=True)],
    batch_size=8,
    num_workers=0,
)
train = dict(iterations=300, decay="cosine", amp="none", log_interval=50, checkpoint_interval=100)
