"""Mask R-CNN with ViT-B on COCO for small budgets: 800 pixels, flips only, 12 epochs of 16 images.

Command:  torchrun --nproc-per-node=8 -m mlomae.cli bench detection
          configs/detection/mask_rcnn_800px_vit-base_12e_coco.py --weights path/to/backbone --data path/to/coco
Hardware: 8 GPUs of 24 GB, 2 images each. Hours: not measured here. Expected: not measured here.
"""

_base_ = "../_base_/mask_rcnn.py"
name = "mask_rcnn_800px_vit-base_12e_coco"
backbone = dict(img_size=800)
data = dict(
    train=dict(type="coco", root="data/coco", split="train"),
    test=dict(type="coco", root="data/coco", split="val"),
    augment=[
        dict(type="Resize", scale=(1333, 800), keep_ratio=True),
        dict(type="RandomFlip", prob=0.5),
    ],
    evaluate=[dict(type="Resize", scale=(1333, 800), keep_ratio=True)],
    batch_size=16,
)
optim = dict(warmup=0.01)
train = dict(iterations=88_716)
