"""The configuration of a transfer to semantic segmentation: MMEngine Python files, checked strictly.

One recipe a data set, the same for every backbone: the backbone's weights come from the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlomae.backbones.config import FeatureBackboneConfig, OptimConfig, check_dense
from mlomae.config.strict import Configuration, build_dataclass, plain, read_config


@dataclass
class DataConfig:
    """Sources (``type``, ``root``, ``split``, ...), and mmseg's transforms between loading and packing.

    ``augment`` sees images and labels; ``evaluate`` images alone: labels stay at the size of the file, to which mmseg
    brings the prediction. ``batch_size`` is global, summed over ranks; evaluation takes images one by one.
    """

    train: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    augment: list = field(default_factory=list)
    evaluate: list = field(default_factory=list)
    batch_size: int = 16
    num_workers: int = 0


@dataclass
class TrainConfig:
    """Length, fall of the rate ("linear" is mmseg's poly of power 1, or "cosine"), precision, intervals."""

    iterations: int = 160_000
    decay: str = "linear"
    amp: str = "none"
    log_interval: int = 50
    checkpoint_interval: int = 500
    keep_checkpoints: int = 2


@dataclass
class SegmentationConfig(Configuration):
    """A whole transfer. ``model``: mmseg's EncoderDecoder without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, widths, number of classes). ``overlays``: test images drawn as pictures."""

    name: str
    data: DataConfig
    model: dict
    backbone: FeatureBackboneConfig = field(default_factory=FeatureBackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    overlays: int = 8
    seed: int = 0
    demo: bool = False


def config_from_dict(values: dict[str, Any]) -> SegmentationConfig:
    """Check plain values and build a `SegmentationConfig`; ConfigError names the key at fault."""
    config = build_dataclass(SegmentationConfig, plain(values))
    check_dense(config, ("linear", "cosine"), {"backbone", "data_preprocessor", "pretrained", "init_cfg"})
    return config


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> SegmentationConfig:
    """Read an MMEngine Python config, apply ``--cfg-options`` style overrides, check it."""
    return config_from_dict(read_config(path, overrides, "configs/segmentation/"))
