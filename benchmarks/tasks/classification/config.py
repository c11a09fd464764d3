"""The configuration of a transfer to classification."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlomae.backbones.config import (
    BackboneConfig,
    DataConfig,
    TrainConfig,
    TransferConfig,
    check_choices,
    check_inside,
    check_least,
)
from mlomae.common.errors import ConfigError

PROTOCOLS = ("finetune", "linear", "knn")


@dataclass
class PooledBackboneConfig(BackboneConfig):
    """A backbone whose classifier reads the mean of the patch tokens ("avg") or the class token ("token")."""

    global_pool: str = "avg"


@dataclass
class ImageDataConfig(DataConfig):
    """Sources (``type``, ``root``, ``split``, ...), and how their images become tensors.

    ``augment``: {type: "rand_augment", "crop_flip" or "pad_crop", options of that transform}, None is the evaluation
    transform (a linear probe then trains on features computed once); ``evaluate``: options of `augment.eval_transform`;
    ``mix``: of `mixing.BatchMix` (mixup, cutmix), None is neither.
    """

    augment: dict | None = None
    evaluate: dict = field(default_factory=dict)
    mix: dict | None = None
    batch_size: int = 128


@dataclass
class EpochsConfig(TrainConfig):
    """Length, precision, intervals. ``ema``: decay of an average of the weights, None is off."""

    epochs: int = 100
    label_smoothing: float = 0.0
    ema: float | None = None


@dataclass
class KnnConfig:
    """Neighbours and temperature of the vote (`mlomae.pretraining.evaluation.knn_accuracy`)."""

    k: int = 20
    temperature: float = 0.07


@dataclass(kw_only=True)
class ClassificationConfig(TransferConfig):
    """A whole transfer: ``protocol`` is "finetune", "linear" or "knn"; ``pooling`` of the frozen features, "cls" or
    "avg", is what the last two read."""

    protocol: str
    data: ImageDataConfig
    backbone: PooledBackboneConfig = field(default_factory=PooledBackboneConfig)
    train: EpochsConfig = field(default_factory=EpochsConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
    pooling: str = "avg"

    def check(self) -> None:
        train, knn, mix = self.train, self.knn, self.data.mix
        check_choices(
            {
                "protocol": (self.protocol, PROTOCOLS),
                "pooling": (self.pooling, ("cls", "avg")),
                "backbone.global_pool": (self.backbone.global_pool, ("avg", "token")),
            }
        )
        super().check()
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
            if self.protocol == "linear" and self.data.augment is None:
                raise ConfigError(
                    "config key 'data.mix' mixes images, and a linear probe without data.augment trains on features; "
                    "set one of them"
                )
