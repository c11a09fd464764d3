"""The configuration of a transfer to classification: MMEngine Python files, checked strictly.

One recipe a data set, the same for every backbone: the backbone's weights come from the command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlomae.backbones.config import (
    BackboneConfig,
    OptimConfig,
    check_choices,
    check_inside,
    check_least,
    check_shared,
)
from mlomae.common.errors import ConfigError
from mlomae.config.strict import Configuration, build_dataclass, plain, read_config

PROTOCOLS = ("finetune", "linear", "knn")


@dataclass
class PooledBackboneConfig(BackboneConfig):
    """A backbone whose classifier reads the mean of the patch tokens ("avg") or the class token ("token")."""

    global_pool: str = "avg"


@dataclass
class DataConfig:
    """Sources (``type``, ``root``, ``split``, ...), and how their images become tensors.

    ``augment``: {type: "rand_augment", "crop_flip" or "pad_crop", options of that transform}, None is the evaluation
    transform (a linear probe then trains on features computed once); ``evaluate``: options of `augment.eval_transform`;
    ``mix``: of `augment.BatchMix` (mixup, cutmix), None is neither. ``batch_size`` is global, summed over ranks.
    """

    train: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    augment: dict | None = None
    evaluate: dict = field(default_factory=dict)
    mix: dict | None = None
    batch_size: int = 128
    num_workers: int = 0


@dataclass
class TrainConfig:
    """Length, precision, intervals. ``ema``: decay of an average of the weights, None is off."""

    epochs: int = 100
    amp: str = "none"
    label_smoothing: float = 0.0
    ema: float | None = None
    log_interval: int = 50
    checkpoint_interval: int = 500
    keep_checkpoints: int = 2


@dataclass
class KnnConfig:
    """Neighbours and temperature of the vote (`mlomae.pretraining.evaluation.knn_accuracy`)."""

    k: int = 20
    temperature: float = 0.07


@dataclass
class TransferConfig(Configuration):
    """A whole transfer: ``protocol`` is "finetune", "linear" or "knn"; ``pooling`` of the frozen features, "cls" or
    "avg", is what the last two read."""

    name: str
    protocol: str
    data: DataConfig
    backbone: PooledBackboneConfig = field(default_factory=PooledBackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
    pooling: str = "avg"
    seed: int = 0
    demo: bool = False


def config_from_dict(values: dict[str, Any]) -> TransferConfig:
    """Check plain values and build a `TransferConfig`; ConfigError names the key at fault."""
    config = build_dataclass(TransferConfig, plain(values))
    _check(config)
    return config


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> TransferConfig:
    """Read an MMEngine Python config, apply ``--cfg-options`` style overrides, check it."""
    return config_from_dict(read_config(path, overrides, "configs/classification/"))


def _check(config: TransferConfig) -> None:
    train, knn, mix = config.train, config.knn, config.data.mix
    check_choices(
        {
            "protocol": (config.protocol, PROTOCOLS),
            "pooling": (config.pooling, ("cls", "avg")),
            "backbone.global_pool": (config.backbone.global_pool, ("avg", "token")),
        }
    )
    check_shared(config)
    check_least({"train.epochs": (train.epochs, 1), "knn.k": (knn.k, 1)})
    check_inside(
        {
            "train.label_smoothing": (train.label_smoothing, 0.0 <= train.label_smoothing < 1.0, "[0, 1)"),
            "train.ema": (train.ema, train.ema is None or 0.0 < train.ema < 1.0, "(0, 1), or None"),
            "knn.temperature": (knn.temperature, 0.0 < knn.temperature < math.inf, "(0, inf)"),
        }
    )
    if mix is not None:
        if "label_smoothing" in mix:
            raise ConfigError("config key 'data.mix.label_smoothing' is unknown; set train.label_smoothing")
        if config.protocol == "linear" and config.data.augment is None:
            raise ConfigError(
                "config key 'data.mix' mixes images, and a linear probe without data.augment trains on features; "
                "set one of them"
            )
