"""The configuration of a transfer to classification."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from mlomae.backbones.config import BackboneConfig, DataConfig, TrainConfig, TransferConfig
from mlomae.common.errors import ConfigError
from mlomae.common.registry import Count
from mlomae.config.strict import ADDED

Protocol = Literal["finetune", "linear", "knn"]
PROTOCOLS = get_args(Protocol)


@dataclass
class PooledBackboneConfig(BackboneConfig):
    """A backbone whose classifier reads the mean of the patch tokens ("avg") or the class token ("token")."""

    global_pool: Literal["avg", "token"] = "avg"


@dataclass
class ImageDataConfig(DataConfig):
    """Sources (``type``, ``root``, ``split``, ...), and how their images become tensors.

    ``augment``: {type: "rand_augment", "crop_flip" or "pad_crop", options of that transform}, None is the evaluation
    transform (a linear probe then trains on features computed once); ``evaluate``: options of `augment.eval_transform`;
    ``mix``: of `augment.BatchMix` (mixup, cutmix), None is neither. ``reduced_decoding``: decode large JPEGs of
    training at 1/2, 1/4 or 1/8 of their size where even the smallest crop stays twice as large as the result: a
    fraction of the time for photos, and slightly other pixels.
    """

    augment: dict | None = None
    evaluate: dict = field(default_factory=dict)
    mix: dict | None = None
    reduced_decoding: bool = field(default=False, metadata=ADDED)
    batch_size: Count = 128


@dataclass
class EpochsConfig(TrainConfig):
    """Length, precision, intervals. ``ema``: decay of an average of the weights, None is off."""

    epochs: Count = 100
    label_smoothing: Annotated[float, "[0, 1)"] = 0.0
    ema: Annotated[float, "(0, 1)"] | None = None


@dataclass
class KnnConfig:
    """Neighbours and temperature of the vote (`mlomae.pretraining.evaluation.knn_accuracy`)."""

    k: Count = 20
    temperature: Annotated[float, "(0, inf)"] = 0.07


@dataclass(kw_only=True)
class ClassificationConfig(TransferConfig):
    """A whole transfer: ``protocol`` is "finetune", "linear" or "knn"; ``pooling`` of the frozen features, "cls" or
    "avg", is what the last two read. A linear head may also pool the patches itself, by attention ("attentive"), with
    ``queries`` queries."""

    protocol: Protocol
    data: ImageDataConfig
    backbone: PooledBackboneConfig = field(default_factory=PooledBackboneConfig)
    train: EpochsConfig = field(default_factory=EpochsConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
    pooling: Literal["cls", "avg", "attentive"] = "avg"
    queries: Count = field(default=16, metadata=ADDED)

    def check(self) -> None:
        super().check()
        mix = self.data.mix
        if self.pooling == "attentive" and self.protocol != "linear":
            raise ConfigError("config key 'pooling': 'attentive' is for protocol='linear'; set it to avg or cls")
        if mix is not None and "label_smoothing" in mix:
            raise ConfigError("config key 'data.mix.label_smoothing' is unknown; set train.label_smoothing")
        if mix is not None and self.protocol == "linear" and self.data.augment is None:
            raise ConfigError(
                "config key 'data.mix' mixes images, and a linear probe without data.augment trains on features; "
                "set one of them"
            )
