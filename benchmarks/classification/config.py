"""The configuration of a transfer to classification: MMEngine Python files, checked strictly.

One recipe a data set, the same for every backbone: the backbone's weights come from the command line.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlomae.errors import ConfigError
from mlomae.strict_config import build_dataclass, plain, read_config

PROTOCOLS = ("finetune", "linear", "knn")


@dataclass
class BackboneConfig:
    """``weights``: a checkpoint or export of ours, official MAE weights, "timm:NAME[:pretrained]", "random" (with
    ``model``, the architecture) or "random:PATH" (the architecture of a file). ``global_pool``: "avg" or "token"."""

    weights: str | None = None
    model: dict | None = None
    img_size: int | list = 224
    drop_path: float = 0.0
    global_pool: str = "avg"

    @property
    def side(self) -> int | tuple[int, ...]:
        """``img_size`` as transforms and models take it: a side, or (height, width)."""
        return self.img_size if isinstance(self.img_size, int) else tuple(self.img_size)


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
class OptimConfig:
    """``lr`` at this batch size, the peak; ``warmup`` is a fraction of the run; every layer's rate ends at
    ``min_lr`` times its share."""

    type: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    betas: tuple = (0.9, 0.999)
    momentum: float = 0.9
    warmup: float = 0.05
    min_lr: float = 1e-6
    clip_grad: float | None = None


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
    """Neighbours and temperature of the vote (`mlomae.evaluation.knn_accuracy`)."""

    k: int = 20
    temperature: float = 0.07


@dataclass
class TransferConfig:
    """A whole transfer: ``protocol`` is "finetune", "linear" or "knn"; ``pooling`` of the frozen features, "cls" or
    "avg", is what the last two read."""

    name: str
    protocol: str
    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
    pooling: str = "avg"
    seed: int = 0
    demo: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, the form that checkpoints and records keep."""
        return dict(plain(dataclasses.asdict(self)))


def config_from_dict(values: dict[str, Any]) -> TransferConfig:
    """Check plain values and build a `TransferConfig`; ConfigError names the key at fault."""
    config = build_dataclass(TransferConfig, plain(values))
    _check(config)
    return config


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> TransferConfig:
    """Read an MMEngine Python config, apply ``--cfg-options`` style overrides, check it."""
    return config_from_dict(read_config(path, overrides, "configs/classification/"))


def _check(config: TransferConfig) -> None:
    choices = {
        "protocol": (config.protocol, PROTOCOLS),
        "pooling": (config.pooling, ("cls", "avg")),
        "backbone.global_pool": (config.backbone.global_pool, ("avg", "token")),
        "optim.type": (config.optim.type, ("adamw", "sgd", "lars")),
        "train.amp": (config.train.amp, ("none", "bf16")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise ConfigError(f"config key '{key}' must be one of {', '.join(known)}; got {value!r}")
    optim, train, clip = config.optim, config.train, config.optim.clip_grad
    least = {
        "data.batch_size": (config.data.batch_size, 1),
        "data.num_workers": (config.data.num_workers, 0),
        "optim.weight_decay": (optim.weight_decay, 0),
        "train.epochs": (train.epochs, 1),
        "train.log_interval": (train.log_interval, 1),
        "train.checkpoint_interval": (train.checkpoint_interval, 1),
        "train.keep_checkpoints": (train.keep_checkpoints, 1),
        "knn.k": (config.knn.k, 1),
    }
    for key, (number, smallest) in least.items():
        if not smallest <= number < math.inf:
            raise ConfigError(f"config key '{key}' must be finite and at least {smallest}; got {number}")
    inside: dict[str, tuple[Any, bool, str]] = {
        "optim.lr": (optim.lr, 0.0 < optim.lr < math.inf, "(0, inf)"),
        "optim.min_lr": (optim.min_lr, 0.0 <= optim.min_lr <= optim.lr, f"[0, {optim.lr:g}], up to optim.lr"),
        "optim.betas": (optim.betas, _are_betas(optim.betas), "[0, 1) and two"),
        "optim.layer_decay": (optim.layer_decay, 0.0 < optim.layer_decay <= 1.0, "(0, 1]"),
        "optim.warmup": (optim.warmup, 0.0 <= optim.warmup <= 1.0, "[0, 1], a fraction of the run"),
        "optim.momentum": (optim.momentum, 0.0 <= optim.momentum < 1.0, "[0, 1)"),
        "train.label_smoothing": (train.label_smoothing, 0.0 <= train.label_smoothing < 1.0, "[0, 1)"),
        "train.ema": (train.ema, train.ema is None or 0.0 < train.ema < 1.0, "(0, 1), or None"),
        "knn.temperature": (config.knn.temperature, 0.0 < config.knn.temperature < math.inf, "(0, inf)"),
        "backbone.drop_path": (config.backbone.drop_path, 0.0 <= config.backbone.drop_path < 1.0, "[0, 1)"),
        "optim.clip_grad": (clip, clip is None or 0.0 < clip < math.inf, "(0, inf), or None"),
        "seed": (config.seed, 0 <= config.seed < 2**32, "[0, 2**32)"),
    }
    for key, (given, fine, interval) in inside.items():
        if not fine:
            raise ConfigError(f"config key '{key}' must be inside {interval}; got {given}")
    size = config.backbone.img_size
    sides = [size, size] if isinstance(size, int) else size
    if len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides):
        raise ConfigError(f"config key 'backbone.img_size' must be a side or [height, width] in pixels; got {size}")
    for part in ("train", "test"):
        if "type" not in getattr(config.data, part):
            raise ConfigError(f"config key 'data.{part}.type' is missing; name a data source")
    if config.data.mix is not None:
        if "label_smoothing" in config.data.mix:
            raise ConfigError("config key 'data.mix.label_smoothing' is unknown; set train.label_smoothing")
        if config.protocol == "linear" and config.data.augment is None:
            raise ConfigError(
                "config key 'data.mix' mixes images, and a linear probe without data.augment trains on features; "
                "set one of them"
            )


def _are_betas(values: tuple) -> bool:
    return len(values) == 2 and all(isinstance(b, int | float) and 0.0 <= b < 1.0 for b in values)
