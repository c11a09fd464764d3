"""Mask R-CNN on CIFAR-10 images at random places of photographs, half of the area: 10 classes, 64 pixels.

Command:  make bench-det CONFIG=configs/detection/mask_rcnn_scenes.py CKPT=path/to/backbone \
              DATA=work_dirs/data/scenes_50/coco, written as configs/segmentation/upernet_scenes.py says
Hardware: 1 core of an Intel Xeon. Time: 3 processor minutes.
Expected: box AP 17.1 from MAE, 15.9 to 17.6 from masks, 24.6 from joint labels (one seed).
On 701 images made of training images: 15.9 from one MAE, 9.9 from random weights.

Images hold one object each, so a quarter of the regions of the other small recipes suffice.
"""

_base_ = "../_base_/mask_rcnn_small.py"
name = "mask_rcnn_scenes"
backbone = dict(img_size=64)
model = dict(
    train_cfg=dict(rpn_proposal=dict(nms_pre=200, max_per_img=25), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=25)),
)
data = dict(
    train=dict(type="coco_folder", root="work_dirs/data/scenes_50/coco", split="train"),
    test=dict(type="coco_folder", root="work_dirs/data/scenes_50/coco", split="val"),
    augment=[dict(type="RandomFlip", prob=0.5)],
    evaluate=[],
    pad_to=8,
    batch_size=16,
    num_workers=0,
)
train = dict(iterations=500, decay="cosine", amp="none", log_interval=50, checkpoint_interval=250)
