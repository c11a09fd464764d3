"""Mask R-CNN with ViT-L on COCO, ViTDet's protocol: more drop path and slower layer decay than ViT-B.

Command:  torchrun --nproc-per-node=64 -m mlomae.cli bench detection
          configs/detection/mask_rcnn_vitdet_vit-large_coco.py --weights path/to/backbone --data path/to/coco
Hardware: 64 A100, one image each (backbone.with_cp=True saves memory). Hours: not measured here.
Expected: box AP 55.6, mask AP 49.2 for MAE (Li et al., ViTDet, ECCV 2022); not measured here.
"""

_base_ = "../_base_/mask_rcnn.py"
name = "mask_rcnn_vitdet_vit-large_coco"
backbone = dict(drop_path=0.4, out_indices=[23], global_blocks=[5, 11, 17, 23])
data = dict(
    train=dict(type="coco", root="data/coco", split="train"),
    test=dict(type="coco", root="data/coco", split="val"),
)
optim = dict(layer_decay=0.8)
