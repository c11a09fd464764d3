"""Mask R-CNN with ViT-B on COCO as in the MAE paper (Li et al. 2021): FPN on four blocks, no layer decay, 25 epochs.

Command:  torchrun --nproc-per-node=64 -m mlomae.cli bench detection
          configs/detection/mask_rcnn_fpn_vit-base_25e_coco.py --weights path/to/backbone --data path/to/coco
          (50 and 100 epochs: --cfg-options train.iterations=92187, or 184375)
Hardware: 64 A100, one image each, about 4 hours. Not run here.
Expected: box AP 48.1, mask AP 43.2 for MAE (facebookresearch/mae, issue 43); 50.1 / 44.6 for 50 epochs, 50.3 / 44.9 for
100.
"""

_base_ = "../_base_/mask_rcnn.py"
name = "mask_rcnn_fpn_vit-base_25e_coco"
backbone = dict(out_indices=[2, 5, 8, 11], window_size=16)
data = dict(
    train=dict(type="coco", root="data/coco", split="train"),
    test=dict(type="coco", root="data/coco", split="val"),
)
_norm = dict(type="SyncBN", requires_grad=True)
model = dict(
    neck=[
        dict(type="mmseg.Feature2Pyramid", rescales=[4, 2, 1, 0.5], norm_cfg=_norm),
        dict(type="FPN", in_channels=[768, 768, 768, 768], out_channels=256, num_outs=5, norm_cfg=_norm),
    ],
)
optim = dict(lr=8e-5, layer_decay=1.0, warmup=0.01)
train = dict(iterations=46_093, decay="cosine")
