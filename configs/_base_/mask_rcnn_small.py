"""Mask R-CNN with narrow heads on the small ViT (width 128, depth 4) for two CPU cores.

Strides of anchors and regions follow from the patch size of the backbone."""

_norm = dict(type="LN2d")
_deltas = dict(type="DeltaXYWHBBoxCoder", target_means=[0.0, 0.0, 0.0, 0.0])
_assign = dict(type="MaxIoUAssigner", ignore_iof_thr=-1)
_sample = dict(type="RandomSampler", neg_pos_ub=-1)
backbone = dict(drop_path=0.0, out_indices=[3])
model = dict(
    neck=dict(type="mlomae.SimpleFeaturePyramid", out_channels=32, scales=[2, 1, 0.5]),
    rpn_head=dict(
        type="RPNHead",
        in_channels=32,
        feat_channels=32,
        num_convs=1,
        anchor_generator=dict(type="AnchorGenerator", scales=[3], ratios=[0.5, 1.0, 2.0]),
        bbox_coder=dict(target_stds=[1.0, 1.0, 1.0, 1.0], **_deltas),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=32,
            finest_scale=8,
        ),
        bbox_head=dict(
            type="Shared2FCBBoxHead",
            in_channels=32,
            fc_out_channels=128,
            roi_feat_size=7,
            bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], **_deltas),
            reg_class_agnostic=False,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        ),
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=32,
            finest_scale=8,
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=2,
            in_channels=32,
            conv_out_channels=32,
            norm_cfg=_norm,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True, **_assign),
            sampler=dict(num=64, pos_fraction=0.5, add_gt_as_proposals=False, **_sample),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=500, max_per_img=100, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(
            assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=True, **_assign),
            sampler=dict(num=64, pos_fraction=0.25, add_gt_as_proposals=True, **_sample),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img=100, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5),
    ),
)
optim = dict(type="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75, warmup=0.1, min_lr=0.0)
