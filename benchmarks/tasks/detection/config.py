"""The configuration of a transfer to detection: MMEngine Python files, checked strictly.

One recipe a data set, the same for every backbone: the backbone's weights come from the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlomae.backbones.config import (
    FeatureBackboneConfig,
    OptimConfig,
    check_choices,
    check_dense,
    check_inside,
    check_least,
)
from mlomae.config.strict import Configuration, build_dataclass, plain, read_config


@dataclass
class DataConfig:
    """Sources (``type``, ``root``, ``split``, ...), and mmdet's transforms between loading and packing.

    ``augment`` sees image, boxes and masks, ``evaluate`` the image alone; boxes and masks are brought back to the
    file's size. ``pad_to``: sides of a batch are multiples of it. ``batch_size`` is global, summed over ranks;
    evaluation takes images one by one.
    """

    train: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    augment: list = field(default_factory=list)
    evaluate: list = field(default_factory=list)
    pad_to: int = 32
    batch_size: int = 16
    num_workers: int = 0


@dataclass
class TrainConfig:
    """Length, fall of the rate ("steps" at 8/9 and 26/27, "cosine" or "linear"), precision, intervals.

    ``amp``: "bf16" is the backbone's and the neck's; boxes need float32 (bf16 has 8 bits: 4 pixels at 1,000).
    """

    iterations: int = 184_375
    decay: str = "steps"
    amp: str = "none"
    log_interval: int = 50
    checkpoint_interval: int = 500
    keep_checkpoints: int = 2


@dataclass
class DetectionConfig(Configuration):
    """A whole transfer. ``model``: mmdet's Mask R-CNN without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, the neck's input, number of classes). ``evaluator``: "pycocotools" or
    "faster_coco_eval". ``overlays``: test images drawn as pictures."""

    name: str
    data: DataConfig
    model: dict
    backbone: FeatureBackboneConfig = field(default_factory=FeatureBackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluator: str = "pycocotools"
    overlays: int = 8
    overlay_score: float = 0.3
    seed: int = 0
    demo: bool = False


def config_from_dict(values: dict[str, Any]) -> DetectionConfig:
    """Check plain values and build a `DetectionConfig`; ConfigError names the key at fault."""
    config = build_dataclass(DetectionConfig, plain(values))
    check_dense(config, ("steps", "cosine", "linear"), {"backbone", "data_preprocessor", "init_cfg"})
    check_choices({"evaluator": (config.evaluator, ("pycocotools", "faster_coco_eval"))})
    check_least({"data.pad_to": (config.data.pad_to, 1)})
    check_inside({"overlay_score": (config.overlay_score, 0.0 <= config.overlay_score <= 1.0, "[0, 1]")})
    return config


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> DetectionConfig:
    """Read an MMEngine Python config, apply ``--cfg-options`` style overrides, check it."""
    return config_from_dict(read_config(path, overrides, "configs/detection/"))
