"""Data for mmseg's and mmdet's models: their transforms, and batches as lists of packed images.

Modules that import mmseg or mmdet import this one first: it gives mmcv its operators, without which mmdet keeps
functions that fail for the rest of the process. That holds for workers too, which import the module of a data set.
"""

from __future__ import annotations

from typing import Any

from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import get_dist_info
from mmengine.registry import DefaultScope, Registry

from mlomae.backbones import mmcv_ops
from mlomae.backbones.batches import EpochBatches, ImageLoader, Ordered, share_of
from mlomae.backbones.config import DenseConfig
from mlomae.common.errors import ConfigError, reason_of

mmcv_ops.install()


def training_batches(config: DenseConfig, images: Ordered) -> ImageLoader:
    """All batches of a run: ``train.iterations`` of ``data.batch_size`` images over all processes.

    The transforms are tried on one image, so that wrong ones are told at once; errors as ``images`` and `EpochBatches`.
    """
    images[0]
    rank, world = get_dist_info()
    size, iterations = config.data.batch_size, config.train.iterations
    batches = EpochBatches(images, batch_size=size, iterations=iterations, rank=rank, world_size=world)
    return ImageLoader(images, batch_sampler=batches, num_workers=config.data.num_workers, collate_fn=pseudo_collate)


def evaluation_batches(config: DenseConfig, images: Ordered) -> ImageLoader:
    """Every image once over all ranks, one by one, after a trial as for `training_batches`."""
    images[0]
    mine, workers = share_of(len(images), *get_dist_info()), config.data.num_workers
    return ImageLoader(images, sampler=mine, batch_size=1, num_workers=workers, collate_fn=pseudo_collate)


def build_pipeline(registry: Registry, steps: list[dict[str, Any]], section: str) -> Compose:
    """The transforms of ``registry`` by name; raises ConfigError, naming the section of the configuration, for one that
    it does not have or that refuses its options."""
    scope = registry.scope
    try:
        with DefaultScope.overwrite_default_scope(scope):  # an earlier run of this process leaves "mmengine"
            return Compose([registry.build(_tuples(step)) for step in steps])
    except Exception as error:  # constructors assert, and raise anything
        raise ConfigError(f"config section '{section}' is refused by {scope} ({reason_of(error)})") from error


def _tuples(value: Any) -> Any:
    """Lists of numbers as tuples: mmcv's transforms insist on them, and a checked configuration holds lists."""
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    if isinstance(value, list):
        numbers = bool(value) and all(isinstance(v, int | float) for v in value)
        return tuple(value) if numbers else [_tuples(v) for v in value]
    return value
