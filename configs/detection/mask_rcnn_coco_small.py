"""Mask R-CNN of the small ViT on a part of COCO at 128 pixels: real images and masks through the whole chain.

Command:  make bench-det CONFIG=configs/detection/mask_rcnn_coco_small.py CKPT=path/to/backbone DATA=path/to/coco
Hardware: 1 core of an AMD EPYC. Time and metrics: not measured yet (backbones of
configs/pretrain/*_vit-w128-d4_cifar10.py; their position embeddings are interpolated).
"""

_base_ = "../_base_/mask_rcnn_small.py"
name = "mask_rcnn_coco_small"
backbone = dict(img_size=128, window_size=8, global_blocks=[1, 3])
data = dict(
    train=dict(type="coco", root="data/coco", split="train", subset=True),
    test=dict(type="coco", root="data/coco", split="val", subset=True),
    augment=[
        dict(type="RandomResize", scale=(128, 128), ratio_range=(0.8, 1.6), keep_ratio=True),
        dict(type="RandomCrop", crop_type="absolute", crop_size=(128, 128), recompute_bbox=True),
        dict(type="FilterAnnotations", min_gt_bbox_wh=(2.0, 2.0)),
        dict(type="RandomFlip", prob=0.5),
    ],
    evaluate=[dict(type="Resize", scale=(128, 128), keep_ratio=True)],
    pad_to=8,
    batch_size=8,
    num_workers=0,
)
train = dict(iterations=400, decay="cosine", amp="none", log_interval=50, checkpoint_interval=100)
