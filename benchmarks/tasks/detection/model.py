"""mmdet's Mask R-CNN around our backbone, in bf16 where boxes allow it, and ViTDet's simple feature pyramid.

Shape legend: B images, D width of the backbone, C channels of the pyramid, h w patch grid.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from benchmarks.tasks.detection.config import ANCHORS, REGIONS, DetectionConfig
from benchmarks.transfer.dense import build_dense, pixels, tried
from mlomae.backbones.feature_vit import MODELS, FeatureViT, build_feature_vit
from mlomae.common.errors import ConfigError

# isort: split
import mmdet.models  # noqa: F401  registers the heads
from mmdet.models.detectors import MaskRCNN
from mmdet.registry import MODELS as DETECTORS


@MODELS.register_module()
class ViTMaskRCNN(MaskRCNN):
    """mmdet's Mask R-CNN whose backbone and neck may train in bf16; heads and boxes stay in float32.

    mmdet casts boxes to the features' type, and in bf16 a coordinate above 512 is a multiple of 4 pixels.

    Several ranks step with the mean of their gradients, which is not the gradient of one process with the whole batch:
    each rank samples its own boxes, and mmdet divides the losses by the numbers of boxes of the rank's images. The
    weights are the same on all ranks to the bit, and so are the detections of one process with these weights.
    """

    def __init__(self, *args: Any, amp: str = "none", **options: Any) -> None:
        super().__init__(*args, **options)
        self.amp = amp

    def autocast(self) -> torch.autocast:
        device = next(self.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.amp == "bf16" and self.training)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        with self.autocast():
            maps = super().extract_feat(batch_inputs)
        return tuple(map_BChw.float() for map_BChw in maps)


if "LN2d" not in ROOT_MODELS:  # the name of the layer norm over channels in ViTDet's heads
    ROOT_MODELS.register_module(name="LN2d", module=LayerNorm2d)


def _rescale(width: int, scale: float) -> tuple[list[nn.Module], int]:
    """Layers that bring a map to ``scale`` times its sides, and its width after them."""
    if scale == 4:
        up = [nn.ConvTranspose2d(width, width // 2, 2, 2), LayerNorm2d(width // 2), nn.GELU()]
        return [*up, nn.ConvTranspose2d(width // 2, width // 4, 2, 2)], width // 4
    if scale == 2:
        return [nn.ConvTranspose2d(width, width // 2, 2, 2)], width // 2
    if scale == 1:
        return [], width
    if scale == 0.5:
        return [nn.MaxPool2d(2, 2)], width
    raise ConfigError(f"the pyramid has scales 4, 2, 1 and 0.5; got {scale}")


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """(B, D, h, w) -> maps (B, C, s·h, s·w) for each s of ``scales``, and one more of half the last one's size.

    Source: Li et al., ViTDet, ECCV 2022, whose pyramid is built from the last map of a plain ViT alone. Each scale has
    its own convolutions (1x1, 3x3, without bias) and layer norms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        extra_level: bool = True,
        init_cfg: None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.extra_level = extra_level
        self.levels = nn.ModuleList()
        for scale in scales:
            layers, width = _rescale(in_channels, scale)
            layers += [nn.Conv2d(width, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
            layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
            self.levels.append(nn.Sequential(*layers))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pyramid = [level(maps[-1]) for level in self.levels]
        if self.extra_level:
            pyramid.append(F.max_pool2d(pyramid[-1], 1, 2))
        return tuple(pyramid)


def _complete(section: dict[str, Any], num_classes: int, width: int) -> dict[str, Any]:
    """The model section with the neck's input width and the number of classes, which backbone and data determine."""
    model = copy.deepcopy(section)
    neck = model.get("neck")
    first = neck[0] if isinstance(neck, list) and neck else neck
    if isinstance(first, dict):
        first.setdefault("embed_dim" if "Feature2Pyramid" in str(first.get("type")) else "in_channels", width)
    for name in ("rpn_head", "roi_head"):
        if not isinstance(model.get(name), dict):
            raise ConfigError(
                f"config key 'model.{name}' is missing; give Mask R-CNN's, see configs/_base_/mask_rcnn.py"
            )
    for name in ("bbox_head", "mask_head"):
        head = model["roi_head"].get(name)
        if not isinstance(head, dict):
            raise ConfigError(f"config key 'model.roi_head.{name}' is missing; give Mask R-CNN's")
        if head.setdefault("num_classes", num_classes) != num_classes:
            given = head["num_classes"]
            raise ConfigError(f"config key 'model' has a {name} for {given} classes, the data has {num_classes}")
    return model


def _check_strides(detector: Any, patch_size: tuple[int, int]) -> None:
    """Raise ConfigError unless anchors and regions lie where the maps of an image have their cells."""
    size = [8 * side for side in patch_size]
    with tried(detector):
        maps = detector.extract_feat(torch.zeros(1, 3, *size))
    found = [tuple(side / cells for side, cells in zip(size, map_BChw.shape[2:], strict=True)) for map_BChw in maps]
    anchors = [(height, width) for width, height in detector.rpn_head.prior_generator.strides]
    extractors = (detector.roi_head.bbox_roi_extractor, detector.roi_head.mask_roi_extractor)
    regions = [[(stride, stride) for stride in extractor.featmap_strides] for extractor in extractors]
    for key, given in zip((ANCHORS, *REGIONS), (anchors, *regions), strict=True):
        right = found if key == ANCHORS else found[: len(given)]
        if given != right:
            theirs, ours = (
                ", ".join(f"{h:g}" if h == w else f"{h:g}x{w:g}" for h, w in sides) for sides in (given, right)
            )
            raise ConfigError(
                f"config key 'model.{key}' is [{theirs}], but the maps of a backbone of patch size {patch_size[0]} "
                f"have strides [{ours}]; set it to those, or leave it out"
            )


def detector_section(config: DetectionConfig, num_classes: int, backbone: FeatureViT) -> dict[str, Any]:
    """mmdet's section of the whole model but its backbone."""
    model = _complete(config.fitted(backbone.patch_size[0]).model, num_classes, backbone.embed_dim)
    padding = {"pad_mask": True, "pad_size_divisor": config.data.pad_to}
    preprocessor = {"type": "mmdet.DetDataPreprocessor", **padding, **pixels(config.data, backbone.report)}
    amp = {"amp": config.train.amp}
    return {"type": "mlomae.ViTMaskRCNN", **model, "data_preprocessor": preprocessor, **amp}


def build_detector(config: DetectionConfig, num_classes: int) -> tuple[nn.Module, str]:
    """mmdet's detector with a pretrained backbone, and what was loaded; its bits depend on ``config`` alone.

    Raises ConfigError for a section that mmdet refuses (`build_dense`) or whose strides are not the maps', and what
    `FeatureViT` raises.
    """
    backbone = build_feature_vit(config.backbone, config.seed)
    detector = build_dense(
        DETECTORS, detector_section(config, num_classes, backbone), backbone, "detector", config.seed
    )
    _check_strides(detector, backbone.patch_size)
    return detector, str(backbone.report)
