"""Mask R-CNN with ViT-B on COCO, ViTDet's protocol: 1,024 pixels, large-scale jitter, 100 epochs of 64 images.

Command:  torchrun --nproc-per-node=64 -m mlomae.cli bench detection
          configs/detection/mask_rcnn_vitdet_vit-base_coco.py --weights path/to/backbone --data path/to/coco
Hardware: 64 A100, one image each; 0.31 s an iteration and 10.9 GB (detectron2), about 16 hours. Not run here.
Expected: box AP 51.6, mask AP 45.9 for MAE (Li et al., ViTDet, ECCV 2022); not measured here.
"""

_base_ = "../_base_/mask_rcnn.py"
name = "mask_rcnn_vitdet_vit-base_coco"
data = dict(
    train=dict(type="coco", root="data/coco", split="train"),
    test=dict(type="coco", root="data/coco", split="val"),
)
