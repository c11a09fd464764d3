"""UperNet on CamVid at a third of its size for the small ViT: 96x96 crops, 11 classes, SegNet's split.

Command:  make bench-seg CONFIG=configs/segmentation/upernet_camvid_small.py CKPT=path/to/backbone DATA=path/to/camvid
Hardware: 1 core of an AMD EPYC. Time: 8 processor minutes.
Expected: mIoU MAE 21.0 ± 0.7, MLO-MAE (nca, mask pooling) 20.9 ± 0.7, random weights 19.1 ± 0.1 (3 seeds; backbones of
configs/pretrain/*_vit-w128-d4_cifar10.py, whose position embeddings are interpolated).
"""

_base_ = "../_base_/upernet_small.py"
name = "upernet_camvid_small"
backbone = dict(img_size=96)
data = dict(
    train=dict(type="camvid", root="data/camvid", split="training"),
    test=dict(type="camvid", root="data/camvid", split="test"),
    augment=[
        dict(type="RandomResize", scale=(160, 120), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(96, 96), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
    ],
    evaluate=[dict(type="Resize", scale=(160, 120), keep_ratio=True)],
    batch_size=8,
    num_workers=0,
)
train = dict(iterations=300, decay="linear", amp="none", log_interval=50, checkpoint_interval=100)
