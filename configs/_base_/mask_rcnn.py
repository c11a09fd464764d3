"""Mask R-CNN on a plain ViT, following ViTDet: windows of 14 patches, four global blocks, simple feature pyramid.

1,024-pixel images with large-scale jitter (0.1 to 2), 100 epochs of 64 images. Source: detectron2 (projects/ViTDet,
configs/common/models/mask_rcnn_vitdet.py). Difference: bf16 instead of fp16, in backbone and neck only.
"""

_norm = dict(type="LN2d")
_deltas = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0])
_assign = dict(type="MaxIoUAssigner", ignore_iof_thr=-1)
_sample = dict(type="RandomSampler", neg_pos_ub=-1)
backbone = dict(
    img_size=1024, drop_path=0.1, out_indices=[11], window_size=14, global_blocks=[2, 5, 8, 11], rel_pos=True
)
data = dict(
    augment=[
        dict(type="RandomResize", scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_type="absolute", crop_size=(1024, 1024), recompute_bbox=True),
        dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
        dict(type="RandomFlip", prob=0.5),
        dict(type="Pad", size=(1024, 1024), pad_val=dict(img=(104, 116, 124))),
    ],
    evaluate=[dict(type="Resize", scale=(1024, 1024), keep_ratio=True)],
    pad_to=32,
    batch_size=64,
    num_workers=4,
)
model = dict(
    neck=dict(type="mlomae.SimpleFeaturePyramid", out_channels=256, scales=[4, 2, 1, 0.5]),
    rpn_head=dict(
        type="RPNHead",
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0]),
        bbox_coder=dict(target_stds=[1.0, 1.0, 1.0, 1.0], **_deltas),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=256,
        ),
        bbox_head=dict(
            type="Shared4Conv1FCBBoxHead",
            in_channels=256,
            conv_out_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            norm_cfg=_norm,
            bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], **_deltas),
            reg_class_agnostic=False,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        ),
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=256,
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            norm_cfg=_norm,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True, **_assign),
            sampler=dict(num=256, pos_fraction=0.5, add_gt_as_proposals=False, **_sample),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=2000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=True, **_assign),
            sampler=dict(num=512, pos_fraction=0.25, add_gt_as_proposals=True, **_sample),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5),
    ),
)
optim = dict(type="adamw", lr=1e-4, weight_decay=0.1, layer_decay=0.7, warmup=250 / 184_375, min_lr=0.0)
train = dict(iterations=184_375, decay="steps", amp="bf16", log_interval=50, checkpoint_interval=4000)
