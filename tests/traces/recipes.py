"""Heads and transforms of the two dense transfers, as mmseg and mmdet name them: `configs/_base_/*_small.py`, smaller.

Shortened nowhere but in widths and numbers of boxes, so that every part of the loss is there.
"""

from typing import Any

_BN: dict[str, Any] = {"type": "BN", "requires_grad": True}
_HEAD: dict[str, Any] = {"channels": 8, "dropout_ratio": 0.1, "norm_cfg": _BN, "align_corners": False}
SEGMENTATION_AUGMENT: list[dict[str, Any]] = [
    {"type": "RandomResize", "scale": (32, 16), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (16, 16), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
]
SEGMENTATION_MODEL: dict[str, Any] = {
    "neck": {"type": "Feature2Pyramid", "rescales": [4, 2, 1, 0.5], "norm_cfg": _BN},
    "decode_head": {
        **{"type": "UPerHead", "in_index": [0, 1, 2, 3], "pool_scales": (1, 2, 3, 6), **_HEAD},
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
    },
    "auxiliary_head": {
        **{"type": "FCNHead", "in_index": 2, "num_convs": 1, "concat_input": False, **_HEAD},
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 0.4},
    },
    "test_cfg": {"mode": "whole"},
}

_DELTAS: dict[str, Any] = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0, 0.0, 0.0, 0.0]}
_ASSIGN: dict[str, Any] = {"type": "MaxIoUAssigner", "ignore_iof_thr": -1}
_SAMPLE: dict[str, Any] = {"type": "RandomSampler", "neg_pos_ub": -1}
_CROSS_ENTROPY: dict[str, Any] = {"type": "CrossEntropyLoss", "loss_weight": 1.0}
_L1: dict[str, Any] = {"type": "L1Loss", "loss_weight": 1.0}


def _extractor(size: int) -> dict[str, Any]:
    layer = {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0}
    return {"type": "SingleRoIExtractor", "roi_layer": layer, "out_channels": 16} | {
        "featmap_strides": [4, 8],
        "finest_scale": 16,
    }


DETECTION_MODEL: dict[str, Any] = {
    "neck": {"type": "mlomae.SimpleFeaturePyramid", "out_channels": 16, "scales": [1, 0.5]},
    "rpn_head": {
        "type": "RPNHead",
        "in_channels": 16,
        "feat_channels": 16,
        "num_convs": 1,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [3],
            "ratios": [0.5, 1.0, 2.0],
            "strides": [4, 8, 16],
        },
        "bbox_coder": {"target_stds": [1.0, 1.0, 1.0, 1.0], **_DELTAS},
        "loss_cls": {**_CROSS_ENTROPY, "use_sigmoid": True},
        "loss_bbox": _L1,
    },
    "roi_head": {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": _extractor(7),
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": 16,
            "fc_out_channels": 32,
            "roi_feat_size": 7,
            "bbox_coder": {"target_stds": [0.1, 0.1, 0.2, 0.2], **_DELTAS},
            "reg_class_agnostic": False,
            "loss_cls": {**_CROSS_ENTROPY, "use_sigmoid": False},
            "loss_bbox": _L1,
        },
        "mask_roi_extractor": _extractor(14),
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": 2,
            "in_channels": 16,
            "conv_out_channels": 16,
            "norm_cfg": {"type": "LN2d"},
            "loss_mask": {**_CROSS_ENTROPY, "use_mask": True},
        },
    },
    "train_cfg": {
        "rpn": {
            "assigner": {
                "pos_iou_thr": 0.7,
                "neg_iou_thr": 0.3,
                "min_pos_iou": 0.3,
                "match_low_quality": True,
                **_ASSIGN,
            },
            "sampler": {"num": 32, "pos_fraction": 0.5, "add_gt_as_proposals": False, **_SAMPLE},
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "rpn_proposal": {"nms_pre": 100, "max_per_img": 20, "nms": {"type": "nms", "iou_threshold": 0.7}}
        | {"min_bbox_size": 0},
        "rcnn": {
            "assigner": {
                "pos_iou_thr": 0.5,
                "neg_iou_thr": 0.5,
                "min_pos_iou": 0.5,
                "match_low_quality": True,
                **_ASSIGN,
            },
            "sampler": {"num": 16, "pos_fraction": 0.25, "add_gt_as_proposals": True, **_SAMPLE},
            "mask_size": 28,
            "pos_weight": -1,
            "debug": False,
        },
    },
    "test_cfg": {
        "rpn": {"nms_pre": 100, "max_per_img": 20, "nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0},
        "rcnn": {"score_thr": 0.01, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 40}
        | {"mask_thr_binary": 0.5},
    },
}
