"""UperNet with the small ViT on a handful of ADE20K images: a smoke test of the layout, not a measurement.

Command:  make bench-seg CONFIG=configs/segmentation/upernet_ade20k_sample.py CKPT=path/to/backbone DATA=folder
Hardware: 1 core of an AMD EPYC. Time: 10 s.
"""

_base_ = "../_base_/upernet_small.py"
name = "upernet_ade20k_sample"
backbone = dict(img_size=64)
data = dict(
    train=dict(type="ade20k", root="data/ade20k_sample", split="training", subset=True),
    test=dict(type="ade20k", root="data/ade20k_sample", split="validation", subset=True),
    augment=[
        dict(type="RandomResize", scale=(256, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
    ],
    evaluate=[dict(type="Resize", scale=(256, 64), keep_ratio=True)],
    batch_size=4,
)
model = dict(test_cfg=dict(_delete_=True, mode="slide", crop_size=(64, 64), stride=(43, 43)))
train = dict(iterations=10, amp="none", log_interval=5, checkpoint_interval=10)
demo = True
