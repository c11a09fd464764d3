"""The configuration of a transfer: what all tasks share, what the dense ones share, checks that name the key at fault.

One recipe a data set, the same for every backbone: the backbone's weights come from the command line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mlomae.common.errors import ConfigError
from mlomae.config.strict import Configuration, build_dataclass, plain, read_config

C = TypeVar("C", bound="TransferConfig")


@dataclass
class BackboneConfig:
    """``weights``: a checkpoint or export of ours, official MAE weights, "timm:NAME[:pretrained]", "random" (with
    ``model``, the architecture) or "random:PATH" (the architecture of a file). ``img_size`` in pixels."""

    weights: str | None = None
    model: dict | None = None
    img_size: int | list = 224
    drop_path: float = 0.0

    @property
    def side(self) -> int | tuple[int, ...]:
        """``img_size`` as transforms and models take it: a side, or (height, width)."""
        return self.img_size if isinstance(self.img_size, int) else tuple(self.img_size)

    @property
    def height_width(self) -> tuple[int, int]:
        """``img_size`` in full."""
        height, width = [self.img_size] * 2 if isinstance(self.img_size, int) else self.img_size
        return height, width


@dataclass
class FeatureBackboneConfig(BackboneConfig):
    """The backbone of dense heads; all keys are arguments of `mlomae.backbones.feature_vit.FeatureViT`."""

    out_indices: tuple = (3, 5, 7, 11)
    window_size: int = 0
    global_blocks: tuple = ()
    rel_pos: bool = False
    with_cp: bool = False


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
class DataConfig:
    """Sources (``type``, ``root``, ``split``, ...). ``batch_size`` is global, summed over ranks."""

    train: dict = field(default_factory=dict)
    test: dict = field(default_factory=dict)
    batch_size: int = 16
    num_workers: int = 0


@dataclass
class TrainConfig:
    """Precision and intervals."""

    amp: str = "none"
    log_interval: int = 50
    checkpoint_interval: int = 500
    keep_checkpoints: int = 2


@dataclass(kw_only=True)
class TransferConfig(Configuration):
    """What the configuration of every task has; a task adds its own sections and keys, and extends `check`."""

    name: str
    data: DataConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    demo: bool = False

    @classmethod
    def load(cls: type[C], path: str | Path, overrides: dict[str, Any] | None = None, examples: str = "configs/") -> C:
        """Read an MMEngine Python config, apply ``--cfg-options`` style overrides, check it.

        ``examples``: the folder that the error for a missing file points to.
        """
        return cls.from_dict(read_config(path, overrides, examples))

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        """Check plain values and build the configuration; ConfigError names the key at fault."""
        config = build_dataclass(cls, plain(values))
        config.check()
        return config

    def check(self) -> None:
        """Raise ConfigError for a value that no run can have."""
        check_shared(self)


@dataclass
class DenseDataConfig(DataConfig):
    """Sources, and the transforms of mmseg or mmdet between loading and packing.

    ``augment`` sees images with labels or objects; ``evaluate`` images alone, since predictions are brought back to the
    size of the file. Evaluation takes images one by one.
    """

    augment: list = field(default_factory=list)
    evaluate: list = field(default_factory=list)


@dataclass
class DenseTrainConfig(TrainConfig):
    """Length, and how the rate falls: "linear" is mmseg's poly of power 1."""

    iterations: int = 160_000
    decay: str = "linear"


@dataclass(kw_only=True)
class DenseConfig(TransferConfig):
    """A transfer under dense heads. ``overlays``: test images drawn as pictures."""

    data: DenseDataConfig
    backbone: FeatureBackboneConfig = field(default_factory=FeatureBackboneConfig)
    train: DenseTrainConfig = field(default_factory=DenseTrainConfig)
    overlays: int = 8

    def check(self) -> None:
        super().check()
        check_least({"train.iterations": (self.train.iterations, 1), "overlays": (self.overlays, 0)})


@contextmanager
def values_of(section: str) -> Iterator[None]:
    """Say in one line that a value of a free-form section has the wrong type; its keys are checked by name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config section '{section}' holds a value of the wrong type ({error}); correct it"
        ) from error


def check_choices(choices: dict[str, tuple[Any, tuple[str, ...]]]) -> None:
    """Key -> (value, the values it may have)."""
    for key, (value, known) in choices.items():
        if value not in known:
            raise ConfigError(f"config key '{key}' must be one of {', '.join(known)}; got {value!r}")


def check_least(least: dict[str, tuple[float, float]]) -> None:
    """Key -> (number, the smallest it may be)."""
    for key, (number, smallest) in least.items():
        if not smallest <= number < math.inf:
            raise ConfigError(f"config key '{key}' must be finite and at least {smallest}; got {number}")


def check_inside(inside: dict[str, tuple[Any, bool, str]]) -> None:
    """Key -> (value, whether it is fine, the interval it must be in)."""
    for key, (given, fine, interval) in inside.items():
        if not fine:
            raise ConfigError(f"config key '{key}' must be inside {interval}; got {given}")


def check_shared(config: TransferConfig) -> None:
    """Check what all tasks have: seed, backbone, optim, and of data and train the sources, batches and intervals."""
    optim, train, backbone, clip = config.optim, config.train, config.backbone, config.optim.clip_grad
    check_choices(
        {
            "optim.type": (optim.type, ("adamw", "sgd", "lars")),
            "train.amp": (train.amp, ("none", "bf16")),
        }
    )
    check_least(
        {
            "data.batch_size": (config.data.batch_size, 1),
            "data.num_workers": (config.data.num_workers, 0),
            "optim.weight_decay": (optim.weight_decay, 0),
            "train.log_interval": (train.log_interval, 1),
            "train.checkpoint_interval": (train.checkpoint_interval, 1),
            "train.keep_checkpoints": (train.keep_checkpoints, 1),
        }
    )
    check_inside(
        {
            "optim.lr": (optim.lr, 0.0 < optim.lr < math.inf, "(0, inf)"),
            "optim.min_lr": (optim.min_lr, 0.0 <= optim.min_lr <= optim.lr, f"[0, {optim.lr:g}], up to optim.lr"),
            "optim.betas": (optim.betas, _are_betas(optim.betas), "[0, 1) and two"),
            "optim.layer_decay": (optim.layer_decay, 0.0 < optim.layer_decay <= 1.0, "(0, 1]"),
            "optim.warmup": (optim.warmup, 0.0 <= optim.warmup <= 1.0, "[0, 1], a fraction of the run"),
            "optim.momentum": (optim.momentum, 0.0 <= optim.momentum < 1.0, "[0, 1)"),
            "optim.clip_grad": (clip, clip is None or 0.0 < clip < math.inf, "(0, inf), or None"),
            "backbone.drop_path": (backbone.drop_path, 0.0 <= backbone.drop_path < 1.0, "[0, 1)"),
            "seed": (config.seed, 0 <= config.seed < 2**32, "[0, 2**32)"),
        }
    )
    sides = [backbone.img_size] * 2 if isinstance(backbone.img_size, int) else backbone.img_size
    if len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides):
        raise ConfigError(
            f"config key 'backbone.img_size' must be a side or [height, width] in pixels; got {backbone.img_size}"
        )
    for part in ("train", "test"):
        if "type" not in getattr(config.data, part):
            raise ConfigError(f"config key 'data.{part}.type' is missing; name a data source")


def check_derived(model: dict[str, Any], derived: set[str]) -> None:
    """Raise ConfigError for a key of the section ``model`` that follows from the other sections."""
    if given := sorted(derived & set(model)):
        raise ConfigError(f"config key 'model.{given[0]}' is made from the other sections; leave it out")


def _are_betas(values: tuple) -> bool:
    return len(values) == 2 and all(isinstance(b, int | float) and 0.0 <= b < 1.0 for b in values)
