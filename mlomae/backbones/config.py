"""The sections that every transfer's configuration has, and checks that name the key at fault."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlomae.common.errors import ConfigError


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


def check_shared(config: Any) -> None:
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


def check_dense(config: Any, decays: tuple[str, ...], made: set[str]) -> None:
    """Check what both dense tasks have: what all have, length and fall of the rate, overlays, the model's section.

    ``made``: keys of ``model`` that follow from the other sections.
    """
    check_shared(config)
    check_choices({"train.decay": (config.train.decay, decays)})
    check_least({"train.iterations": (config.train.iterations, 1), "overlays": (config.overlays, 0)})
    if given := sorted(made & set(config.model)):
        raise ConfigError(f"config key 'model.{given[0]}' is made from the other sections; leave it out")


def _are_betas(values: tuple) -> bool:
    return len(values) == 2 and all(isinstance(b, int | float) and 0.0 <= b < 1.0 for b in values)
