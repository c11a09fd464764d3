"""Mask R-CNN on the embedded textures, written as COCO files: 8 textures, 32 pixels.

Command:  make bench-det (backbones of `make demo` and `make pretrain`, and random ones)
Hardware: 1 core of an AMD EPYC. Time: 1 min 45 s of a processor a backbone.
Box AP on 500 validation images, seeds 1 and 2: 2.6 and 1.4 (random weights), 35.1 and 42.2 (the MAE of `make demo`).

Images hold two objects, so half as many regions as in the other small recipes suffice, in two thirds of the time.
"""

_base_ = "../_base_/mask_rcnn_small.py"
name = "mask_rcnn_textures"
backbone = dict(img_size=32)
model = dict(
    train_cfg=dict(rpn_proposal=dict(nms_pre=200, max_per_img=50), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50)),
)
data = dict(
    train=dict(type="coco_folder", root="work_dirs/data/textures_coco", split="train"),
    test=dict(type="coco_folder", root="work_dirs/data/textures_coco", split="val"),
    augment=[dict(type="RandomFlip", prob=0.5)],
    evaluate=[],
    pad_to=4,
    batch_size=16,
    num_workers=0,
)
train = dict(iterations=300, decay="cosine", amp="none", log_interval=20, checkpoint_interval=150)
overlay_score = 0.15
