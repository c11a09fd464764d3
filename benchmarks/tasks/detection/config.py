"""The configuration of a transfer to object detection."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlomae.backbones.config import (
    DenseConfig,
    DenseDataConfig,
    DenseTrainConfig,
    check_choices,
    check_derived,
    check_inside,
    check_least,
)


@dataclass
class DetectionDataConfig(DenseDataConfig):
    """``augment`` sees image, boxes and masks. ``pad_to``: sides of a batch are multiples of it."""

    pad_to: int = 32


@dataclass
class DetectionTrainConfig(DenseTrainConfig):
    """Length, fall of the rate ("steps" at 8/9 and 26/27, "cosine" or "linear"), precision, intervals.

    ``amp``: "bf16" is the backbone's and the neck's; boxes need float32 (bf16 has 8 bits: 4 pixels at 1,000).
    """

    iterations: int = 184_375
    decay: str = "steps"


@dataclass(kw_only=True)
class DetectionConfig(DenseConfig):
    """A whole transfer. ``model``: mmdet's Mask R-CNN without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, the neck's input, number of classes). ``evaluator``: "pycocotools" or
    "faster_coco_eval". ``overlay_score``: the lowest score of a detection that pictures show."""

    model: dict
    data: DetectionDataConfig
    train: DetectionTrainConfig = field(default_factory=DetectionTrainConfig)
    evaluator: str = "pycocotools"
    overlay_score: float = 0.3

    def check(self) -> None:
        super().check()
        check_choices(
            {
                "train.decay": (self.train.decay, ("steps", "cosine", "linear")),
                "evaluator": (self.evaluator, ("pycocotools", "faster_coco_eval")),
            }
        )
        check_derived(self.model, {"backbone", "data_preprocessor", "init_cfg"})
        check_least({"data.pad_to": (self.data.pad_to, 1)})
        check_inside({"overlay_score": (self.overlay_score, 0.0 <= self.overlay_score <= 1.0, "[0, 1]")})
