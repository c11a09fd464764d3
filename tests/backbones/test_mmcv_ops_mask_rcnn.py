"""mmdet's Mask R-CNN end to end on the stand-in: one step of training and one prediction, on a processor."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlomae.backbones.mmcv_ops import install

pytest.importorskip("mmdet")
install()
from mmdet.models import MaskRCNN  # noqa: E402, F401  (registers the detector and its parts)
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

SIZE, CLASSES, WIDTH = 64, 2, 16


class TinyBackbone(nn.Module):
    """Feature maps of strides 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 4, 3)
        self.deep = nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shallow = self.stem(images).relu()
        return shallow, self.deep(shallow).relu()


def rcnn(sampler: dict[str, Any], assigner: dict[str, Any]) -> dict[str, Any]:
    return {"assigner": {"type": "MaxIoUAssigner", **assigner}, "sampler": {"type": "RandomSampler", **sampler}}


def extractor(size: int) -> dict[str, Any]:
    layer = {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0}
    return {"type": "SingleRoIExtractor", "roi_layer": layer, "out_channels": WIDTH, "featmap_strides": [4, 8]}


def config() -> dict[str, Any]:
    coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": [0.1, 0.1, 0.2, 0.2]}
    proposals = {"nms_pre": 200, "max_per_img": 50, "nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0}
    anchors = {"type": "AnchorGenerator", "scales": [4, 8], "ratios": [0.5, 1.0, 2.0], "strides": [4, 8]}
    softmax, smooth = {"type": "CrossEntropyLoss"}, {"type": "L1Loss"}
    heads = {
        "bbox_roi_extractor": extractor(7),
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": WIDTH,
            "fc_out_channels": 32,
            "roi_feat_size": 7,
            "num_classes": CLASSES,
            "bbox_coder": coder,
            "loss_cls": softmax,
            "loss_bbox": smooth,
        },
        "mask_roi_extractor": extractor(14),
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": 1,
            "in_channels": WIDTH,
            "conv_out_channels": WIDTH,
            "num_classes": CLASSES,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True},
        },
    }
    above, half = (
        {"pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3, "match_low_quality": True},
        {"pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "min_pos_iou": 0.5, "match_low_quality": True},
    )
    return {
        "type": "MaskRCNN",
        "data_preprocessor": {"type": "mmdet.DetDataPreprocessor", "pad_mask": True, "pad_size_divisor": 32},
        "backbone": {"type": TinyBackbone},
        "neck": {"type": "FPN", "in_channels": [8, 8], "out_channels": WIDTH, "num_outs": 2},
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": WIDTH,
            "feat_channels": WIDTH,
            "anchor_generator": anchors,
            "bbox_coder": {**coder, "target_stds": [1.0] * 4},
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True},
            "loss_bbox": smooth,
        },
        "roi_head": {"type": "StandardRoIHead", **heads},
        "train_cfg": {
            "rpn": {
                **rcnn({"num": 64, "pos_fraction": 0.5, "neg_pos_ub": -1, "add_gt_as_proposals": False}, above),
                "allowed_border": -1,
                "pos_weight": -1,
            },
            "rpn_proposal": proposals,
            "rcnn": {
                **rcnn({"num": 32, "pos_fraction": 0.25, "neg_pos_ub": -1, "add_gt_as_proposals": True}, half),
                "mask_size": 28,
                "pos_weight": -1,
            },
        },
        "test_cfg": {
            "rpn": proposals,
            "rcnn": {
                "score_thr": 0.0,
                "nms": {"type": "nms", "iou_threshold": 0.5},
                "max_per_img": 5,
                "mask_thr_binary": 0.5,
            },
        },
    }


def batch() -> dict[str, list[Any]]:
    """Two images, each with a bright square and a dark one."""
    images, annotated = [], []
    for shift in (0, 8):
        image = torch.full((3, SIZE, SIZE), 100, dtype=torch.uint8)
        boxes = torch.tensor([[4.0 + shift, 8, 28 + shift, 32], [24.0, 36, 48, 60]])
        masks = np.zeros((2, SIZE, SIZE), dtype=np.uint8)
        for mask, value, (x1, y1, x2, y2) in zip(masks, (220, 10), boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
            image[:, y1:y2, x1:x2] = value
        shape = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
        instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]), masks=BitmapMasks(masks, SIZE, SIZE))
        images.append(image)
        annotated.append(DetDataSample(metainfo=shape, gt_instances=instances))
    return {"inputs": images, "data_samples": annotated}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):  # another test's runner leaves "mmengine"
        return MODELS.build(ConfigDict(config()))


def test_one_step_of_training(model: nn.Module) -> None:
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    losses = model.train().train_step(batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)))
    for name in ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"):
        assert torch.isfinite(losses[name]).all()
        assert losses[name] > 0
    assert all(torch.isfinite(value).all() for value in model.parameters())
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(before)


@pytest.mark.parametrize("branch", ["loss_bbox", "loss_mask"])
def test_gradients_pass_through_roi_align_to_the_backbone(model: nn.Module, branch: str) -> None:
    data = model.data_preprocessor(batch(), training=True)
    loss = model.train()(**data, mode="loss")[branch]
    for gradient in torch.autograd.grad(loss, list(model.backbone.parameters())):
        assert torch.isfinite(gradient).all()
        assert gradient.any()


def test_prediction(model: nn.Module) -> None:
    for sample in model.eval().test_step(batch()):
        found = sample.pred_instances
        assert 0 < len(found) <= 5
        assert found.masks.shape == (len(found), SIZE, SIZE)
        assert found.masks.dtype == torch.bool
        assert torch.isfinite(found.bboxes).all()
        assert ((found.bboxes >= 0) & (found.bboxes <= SIZE)).all()
        assert (found.scores.diff() <= 0).all()


def test_nothing_was_replaced_by_mmdets_own_stopgaps() -> None:
    """mmdet tries its imports of mmcv.ops and puts functions that raise in their place."""
    ops = sys.modules["mmcv.ops"]
    assert sys.modules["mmdet.structures.mask.structures"].roi_align is ops.roi_align
    assert sys.modules["mmdet.models.dense_heads.rpn_head"].batched_nms is ops.batched_nms
    assert sys.modules["mmdet.models.layers.bbox_nms"].batched_nms is ops.batched_nms
