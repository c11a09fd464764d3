"""What a transfer trains and evaluates on, from the free-form sections of its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmengine.dist import get_dist_info

from benchmarks.tasks.classification.augment import Transform, build_transform, eval_transform
from benchmarks.tasks.classification.config import TransferConfig
from benchmarks.tasks.classification.mixing import BatchMix
from mlomae.backbones.sources import open_pair, values_of
from mlomae.common.registry import Registry
from mlomae.data import Source, build_source

_SECTIONS = Registry[Any]("config section")
_SECTIONS.register("data.evaluate")(eval_transform)
_SECTIONS.register("data.mix")(BatchMix)


@dataclass
class Inputs:
    """Sources, checked, and their transforms; ``plain`` has nothing random."""

    train: Source
    test: Source
    augment: Transform
    plain: Transform


def open_inputs(config: TransferConfig) -> Inputs:
    """Both sources and their transforms; errors as `open_pair`."""
    return Inputs(*open_pair(config.data, build_source), *build_transforms(config))


def build_transforms(config: TransferConfig) -> tuple[Transform, Transform]:
    """Of training and of evaluation; the same object without ``data.augment``."""
    data, side = config.data, config.backbone.side
    with values_of("data.evaluate"):
        plain: Transform = _SECTIONS.build("data.evaluate", data.evaluate, img_size=side)
    with values_of("data.augment"):
        return (plain if data.augment is None else build_transform(data.augment, side)), plain


def build_mix(config: TransferConfig, num_classes: int) -> BatchMix | None:
    """Mixup and cutmix, if ``data.mix`` asks for them."""
    if config.data.mix is None:
        return None
    smoothing = config.train.label_smoothing
    with values_of("data.mix"):
        mix: BatchMix = _SECTIONS.build("data.mix", config.data.mix, num_classes=num_classes, label_smoothing=smoothing)
    mix.check_batch(config.data.batch_size // get_dist_info()[1])
    return mix
