"""mmseg's EncoderDecoder with our backbone, checked before anything is trained."""

import copy
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.structures import PixelData
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.transfer.dense import build_dense, pixels, tried
from mlomae.backbones.feature_vit import FeatureViT, build_feature_vit
from mlomae.common.errors import ConfigError

# isort: split
import mmseg.models  # noqa: F401  registers the heads
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


def _heads(section: dict[str, Any], num_classes: int, width: int) -> dict[str, Any]:
    """The model section with the widths and the number of classes that follow from the backbone and the data."""
    model = copy.deepcopy(section)
    neck = model.get("neck")
    if isinstance(neck, dict) and neck.get("type") == "Feature2Pyramid":
        neck.setdefault("embed_dim", width)
    decode, auxiliary = model.get("decode_head"), model.get("auxiliary_head")
    if decode is None:
        raise ConfigError("config key 'model.decode_head' is missing; give one of mmseg's heads")
    others = auxiliary if isinstance(auxiliary, list) else [auxiliary] if auxiliary else []
    for head in (decode, *others):
        if not isinstance(head, dict):
            raise ConfigError(f"config key 'model' has {head!r} for a head; give a dict with its type")
        index = head.get("in_index", -1)
        head.setdefault("in_channels", [width] * len(index) if isinstance(index, list) else width)
        head.setdefault("num_classes", num_classes)
        if head["num_classes"] != num_classes:
            raise ConfigError(
                f"config key 'model' has a head for {head['num_classes']} classes, data has {num_classes}"
            )
    return model


def _check_inference(test_cfg: Any) -> None:
    """Check ``test_cfg`` now: mmseg would read it only after training."""
    if not isinstance(test_cfg, dict):
        raise ConfigError(f"config key 'model.test_cfg' must be a dict; got {test_cfg!r}")
    if (mode := test_cfg.get("mode")) not in ("whole", "slide"):
        raise ConfigError(f"config key 'model.test_cfg.mode' must be one of whole, slide; got {mode!r}")
    given = [test_cfg.get(key) for key in ("crop_size", "stride")]
    sides = [value for value in given if isinstance(value, list) and [type(side) for side in value] == [int, int]]
    fits = len(sides) == 2 and all(0 < stride <= crop for crop, stride in zip(*sides, strict=True))
    if mode == "slide" and not fits:
        raise ConfigError(
            "config key 'model.test_cfg' with mode 'slide' needs crop_size and stride, each [height, width] in pixels, "
            f"the stride not above the crop; got {test_cfg}"
        )


def _check_statistics(segmentor: nn.Module, images: int) -> None:
    """Check that no BatchNorm gets a single value, which torch refuses: UperNet pools an image to one pixel."""
    alone = any(isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm) for m in segmentor.modules())
    if alone and images < 2:
        raise ConfigError("BatchNorm needs 2 images a process; raise data.batch_size, or use GN in norm_cfg")


def _check_fit(segmentor: Any, patch_size: tuple[int, int]) -> None:
    """Compute the loss of a small image, so that neck or heads that do not fit the maps fail before training."""
    size = [4 * side for side in patch_size]
    sample = SegDataSample(metainfo={"img_shape": size})
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.int64))
    with tried(segmentor):
        segmentor.loss(torch.zeros(1, 3, *size), [sample])


def segmentor_section(config: SegmentationConfig, num_classes: int, backbone: FeatureViT) -> dict[str, Any]:
    """mmseg's section of the whole model but its backbone."""
    section = {"type": "EncoderDecoder", "test_cfg": {"mode": "whole"}}
    section |= _heads(config.model, num_classes, backbone.embed_dim)
    _check_inference(section["test_cfg"])
    size = config.backbone.height_width  # a training crop's, also of a smaller image
    section["data_preprocessor"] = {"type": "SegDataPreProcessor", "size": size, **pixels(config.data, backbone.report)}
    return section


def build_segmentor(config: SegmentationConfig, num_classes: int) -> tuple[nn.Module, str]:
    """mmseg's segmentor with a pretrained backbone, and what was loaded; its bits depend on ``config`` alone.

    Raises ConfigError for a section that mmseg refuses (`build_dense`) or would fail on during or after training, and
    what `FeatureViT` raises.
    """
    backbone = build_feature_vit(config.backbone, config.seed)
    section = segmentor_section(config, num_classes, backbone)
    segmentor = build_dense(MODELS, section, backbone, "segmentor", config.seed)
    _check_fit(segmentor, backbone.patch_size)
    _check_statistics(segmentor, config.data.batch_size // get_world_size())
    return segmentor, str(backbone.report)
