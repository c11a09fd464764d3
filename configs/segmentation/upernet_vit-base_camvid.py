"""UperNet with ViT-B on CamVid at 480x360: 352x352 crops, 11 classes, SegNet's split.

Command:  make bench-seg CONFIG=configs/segmentation/upernet_vit-base_camvid.py CKPT=path/to/backbone DATA=camvid
Hardware: 1 GPU of 24 GB (bf16). Hours: not measured here. Expected: not measured here.
"""

_base_ = "../_base_/upernet.py"
name = "upernet_vit-base_camvid"
backbone = dict(img_size=352)
data = dict(
    train=dict(type="camvid", root="data/camvid", split="training"),
    test=dict(type="camvid", root="data/camvid", split="test"),
    augment=[
        dict(type="RandomResize", scale=(480, 360), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(352, 352), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
    ],
    evaluate=[],
)
model = dict(test_cfg=dict(_delete_=True, mode="whole"))
optim = dict(warmup=0.1)
train = dict(iterations=8_000, checkpoint_interval=1000)
