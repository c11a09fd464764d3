"""Ranges of a configuration's values; `mlomae.config.schema` has checked names and types before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlomae.common.errors import ConfigError

if TYPE_CHECKING:
    from mlomae.config.schema import OptimConfig, PretrainConfig


def check_ranges(config: PretrainConfig) -> None:
    """Raise ConfigError, naming the key, for the first value that is out of range or contradicts another."""
    ratio = config.mask.get("ratio", 0.75)
    if not (isinstance(ratio, float) and 0.0 < ratio < 1.0):
        raise ConfigError(f"config key 'mask.ratio' must be a number inside (0, 1); got {ratio!r}")
    if "type" not in config.mask:
        raise ConfigError("config key 'mask.type' is missing; choose one of the masking strategies")
    if "type" not in config.feedback:
        raise ConfigError("config key 'feedback.type' is missing; choose one of the feedback losses")
    if config.auxiliary is not None and "type" not in config.auxiliary:
        raise ConfigError("config key 'auxiliary.type' is missing; choose one of the auxiliary losses")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"config key 'seed' must be inside [0, 2**32); got {config.seed}")
    if config.data.num_workers < 0:
        raise ConfigError(f"config key 'data.num_workers' must be at least 0; got {config.data.num_workers}")
    if config.train.amp not in ("none", "bf16"):
        raise ConfigError(f"config key 'train.amp' must be 'none' or 'bf16'; got {config.train.amp!r}")
    if not 0.0 < config.data.val_fraction < 1.0:
        raise ConfigError(f"config key 'data.val_fraction' must be inside (0, 1); got {config.data.val_fraction}")
    positive = {
        "train": ("outer_iterations", "accumulate", "log_interval", "picture_interval", "checkpoint_interval"),
        "data": ("batch_size", "feedback_batch_size"),
        "levels": ("lower_steps", "head_steps", "upper_every"),
    }
    for section, keys in positive.items():
        for key in keys:
            if getattr(getattr(config, section), key) < 1:
                raise ConfigError(f"config key '{section}.{key}' must be at least 1")
    if not 0 <= config.levels.warmup < config.train.outer_iterations:
        raise ConfigError(
            f"config key 'levels.warmup' must be inside [0, train.outer_iterations), or the mask never learns; "
            f"got {config.levels.warmup}"
        )
    if not 0.0 <= config.levels.warmup_margin < 100.0:
        raise ConfigError(
            f"config key 'levels.warmup_margin' must be percentage points inside [0, 100); "
            f"got {config.levels.warmup_margin}"
        )
    if not 0.0 <= config.levels.v_momentum < 1.0:
        raise ConfigError(f"config key 'levels.v_momentum' must be inside [0, 1); got {config.levels.v_momentum}")
    if config.levels.mask_pooling and config.feedback.get("pooling", "avg") != "avg":
        raise ConfigError("config key 'levels.mask_pooling' weighs patch tokens; set feedback.pooling='avg'")
    if config.levels.solver == "explicit" and not config.levels.mask_pooling:
        raise ConfigError(
            "levels.solver='explicit' needs levels.mask_pooling=True, or the mask has nothing to learn from"
        )
    if config.levels.solver == "finite_difference" and config.levels.mask_pooling:
        raise ConfigError("levels.solver='finite_difference' does not go with levels.mask_pooling; choose one_step")
    if config.train.keep_checkpoints < 1:
        raise ConfigError("config key 'train.keep_checkpoints' must be at least 1, or nothing is left to resume from")
    unknown = sorted(set(config.optim) - {"theta", "omega", "phi"})
    if unknown:
        raise ConfigError(f"unknown config key 'optim.{unknown[0]}'; the levels are theta, omega, phi")
    for level, settings in config.optim.items():
        _check_optim(settings, f"optim.{level}")
        if level != "theta" and settings.clip_grad is not None:
            raise ConfigError(f"config key 'optim.{level}.clip_grad' has no effect, only theta is clipped; remove it")


def _check_optim(settings: OptimConfig, where: str) -> None:
    for key in ("lr", "weight_decay", "min_lr"):
        if not 0.0 <= getattr(settings, key) < math.inf:
            raise ConfigError(f"config key '{where}.{key}' must be at least 0; got {getattr(settings, key)}")
    if not 0.0 <= settings.warmup <= 1.0:
        raise ConfigError(f"config key '{where}.warmup' must be a fraction of the run, 0 to 1; got {settings.warmup}")
    betas = settings.betas
    if len(betas) != 2 or not all(isinstance(b, int | float) and 0.0 <= b < 1.0 for b in betas):
        raise ConfigError(f"config key '{where}.betas' must be two numbers inside [0, 1); got {betas}")
    if settings.clip_grad is not None and not settings.clip_grad > 0.0:
        raise ConfigError(f"config key '{where}.clip_grad' must be positive or None; got {settings.clip_grad}")
