"""mmdet's Mask R-CNN around our backbone, and the step that MMEngine's loop drives."""

from __future__ import annotations

import copy
from typing import Any

import mmdet.models  # noqa: F401  registers the heads
import torch
from mmdet.models.detectors import MaskRCNN
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import ConfigDict
from mmengine.dist import get_rank, get_world_size
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from benchmarks.detection import pyramid  # noqa: F401  registers the neck
from benchmarks.detection.config import DetectionConfig
from benchmarks.transfer.feature_vit import MODELS, build_feature_vit
from benchmarks.transfer.optimizers import average_statistics
from benchmarks.transfer.seeding import seed_step, seeded
from mlomae.counter import root_key
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.engine.precision import require_bf16
from mlomae.errors import ConfigError, reason_of


@MODELS.register_module()
class ViTMaskRCNN(MaskRCNN):
    """mmdet's Mask R-CNN whose backbone and neck may train in bf16; heads and boxes stay in float32.

    mmdet casts boxes to the features' type, and in bf16 a coordinate above 512 is a multiple of 4 pixels.
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


def _complete(section: dict[str, Any], num_classes: int, width: int) -> dict[str, Any]:
    """The model section with the neck's input and the number of classes, which follow from backbone and data."""
    model = copy.deepcopy(section)
    neck = model.get("neck")
    first = neck[0] if isinstance(neck, list) and neck else neck
    if isinstance(first, dict):
        first.setdefault("embed_dim" if "Feature2Pyramid" in str(first.get("type")) else "in_channels", width)
    if not isinstance(model.get("roi_head"), dict):
        raise ConfigError("config key 'model.roi_head' is missing; give Mask R-CNN's, see configs/_base_/mask_rcnn.py")
    for name in ("bbox_head", "mask_head"):
        head = model["roi_head"].get(name)
        if not isinstance(head, dict):
            raise ConfigError(f"config key 'model.roi_head.{name}' is missing; give Mask R-CNN's")
        if head.setdefault("num_classes", num_classes) != num_classes:
            given = head["num_classes"]
            raise ConfigError(f"config key 'model' has a {name} for {given} classes, the data has {num_classes}")
    return model


def build_detector(config: DetectionConfig, num_classes: int) -> tuple[nn.Module, str]:
    """mmdet's detector with a pretrained backbone, and what was loaded; its bits depend on ``config`` alone.

    SyncBN becomes BatchNorm unless there are several processes with a GPU each: the others cannot run it.
    Raises ConfigError for a section that mmdet refuses, and what `FeatureViT` raises.
    """
    backbone = build_feature_vit(config.backbone, config.seed)
    section = _complete(config.model, num_classes, backbone.embed_dim)
    pixels = {"mean": [255 * m for m in IMAGENET_MEAN], "std": [255 * s for s in IMAGENET_STD]}
    padding = {"pad_mask": True, "pad_size_divisor": config.data.pad_to}
    section["data_preprocessor"] = {"type": "mmdet.DetDataPreprocessor", "bgr_to_rgb": True, **padding, **pixels}
    section["backbone"] = {"type": lambda: backbone}  # is built: the neck's width is its own
    section["amp"] = config.train.amp
    with (
        seeded(root_key(config.seed, "detector")),
        DefaultScope.overwrite_default_scope("mmdet"),  # an earlier run of this process leaves "mmengine"
    ):
        try:
            detector = DETECTORS.build(ConfigDict({"type": "mlomae.ViTMaskRCNN", **section}))
            detector._dump_init_info = lambda: None  # MMEngine logs a line, and more, for every parameter
            detector.init_weights()
        except Exception as error:  # mmdet's constructors raise anything
            raise ConfigError(f"config section 'model' is refused by mmdet ({reason_of(error)})") from error
    if not (torch.cuda.is_available() and get_world_size() > 1):
        detector = revert_sync_batchnorm(detector)
    return detector, str(backbone.report)


class TransferDetector(BaseModel):
    """A detector whose step draws from (seed, iteration, rank) alone; names what a checkpoint keeps."""

    def __init__(self, detector: nn.Module, seed: int) -> None:
        super().__init__()
        self.detector: Any = detector
        self.seed = seed
        self._autocast_checked = False

    def init_weights(self) -> None:
        """Nothing: MMEngine's Runner calls this, and the weights are there."""

    def saved_modules(self) -> dict[str, nn.Module]:
        return {"detector": self.detector}

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        """One update on a batch; ``data["iteration"]`` is its number. Returns mmdet's losses, detached."""
        if not self._autocast_checked and self.detector.amp != "none":
            blocks = self.detector.backbone.vit.blocks
            require_bf16(next(m for m in blocks.modules() if isinstance(m, nn.Linear)), self.detector.autocast())
        self._autocast_checked = True
        batch = {key: data[key] for key in ("inputs", "data_samples")}
        seed_step(root_key(self.seed, "drop", data["iteration"], get_rank()))  # samplers of boxes draw too
        losses = self.detector.train_step(batch, optim_wrapper["model"])
        average_statistics(self.detector)
        return {name: value.detach() for name, value in losses.items()}

    def test_step(self, data: dict[str, Any]) -> list[Any]:
        """mmdet's data samples with ``pred_instances`` at the size of the file."""
        return list(self.detector.test_step(data))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        return self.detector(inputs, data_samples, mode)
