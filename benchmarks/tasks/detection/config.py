"""The configuration of a transfer to object detection."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from mlomae.backbones.config import DenseConfig, DenseDataConfig, DenseTrainConfig
from mlomae.common.registry import Count


@dataclass
class DetectionDataConfig(DenseDataConfig):
    """``augment`` sees image, boxes and masks. ``pad_to``: sides of a batch are multiples of it."""

    pad_to: Count = 32


@dataclass
class DetectionTrainConfig(DenseTrainConfig):
    """``amp``: "bf16" is the backbone's and the neck's; boxes need float32 (bf16 has 8 bits: 4 pixels at 1,000)."""

    iterations: Count = 184_375
    decay: Literal["linear", "cosine", "steps"] = "steps"


@dataclass(kw_only=True)
class DetectionConfig(DenseConfig):
    """A whole transfer. ``model``: mmdet's Mask R-CNN without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, the neck's input, number of classes). ``overlay_score``: the lowest score of a
    detection that pictures show."""

    derived = frozenset({"backbone", "data_preprocessor", "init_cfg"})
    model: dict
    data: DetectionDataConfig
    train: DetectionTrainConfig = field(default_factory=DetectionTrainConfig)
    evaluator: Literal["pycocotools", "faster_coco_eval"] = "pycocotools"
    overlay_score: Annotated[float, "[0, 1]"] = 0.3
