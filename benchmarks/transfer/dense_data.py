"""Data for mmseg's and mmdet's models: their transforms, and batches as lists of packed images.

Modules that import mmseg or mmdet import this one first: it gives mmcv its operators, without which mmdet keeps
functions that fail for the rest of the process. That holds for workers too, which import the module of a data set.
"""

from typing import Any

from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope, Registry

from mlomae.backbones import mmcv_ops
from mlomae.backbones.batches import ImageLoader, NumberedImages, evaluation_loader, training_loader
from mlomae.backbones.config import DenseConfig
from mlomae.common.errors import ConfigError, reason_of

mmcv_ops.install()


def training_batches(config: DenseConfig, images: NumberedImages) -> ImageLoader:
    """All batches of a run: ``train.iterations`` of ``data.batch_size`` images over all processes.

    The transforms are tried on one image, so that wrong ones are told at once; errors as ``images`` and `EpochBatches`.
    """
    images[0]
    options = {"num_workers": config.data.num_workers, "collate_fn": pseudo_collate}
    return training_loader(images, config.data.batch_size, iterations=config.train.iterations, **options)


def evaluation_batches(config: DenseConfig, images: NumberedImages) -> ImageLoader:
    """Every image once over all ranks, one by one, after a trial as for `training_batches`."""
    images[0]
    return evaluation_loader(images, num_workers=config.data.num_workers, collate_fn=pseudo_collate)


def build_pipeline(registry: Registry, steps: list[dict[str, Any]], section: str) -> Compose:
    """The transforms of ``registry`` by name; raises ConfigError, naming the section of the configuration, for one that
    it does not have or that refuses its options."""
    scope = registry.scope
    try:
        with DefaultScope.overwrite_default_scope(scope):  # an earlier run of this process leaves "mmengine"
            return Compose([registry.build(_tuples(step)) for step in steps])
    except Exception as error:  # constructors assert, and raise anything
        raise ConfigError(f"config section '{section}' is refused by {scope} ({reason_of(error)})") from error


def apply_steps(steps: Compose, results: dict[str, Any], section: str) -> Any:
    """What the transforms make of ``results``, with ``img_path``, or None if they drop the image.

    Raises ConfigError, naming file and section, if they fail: a transform that does not fit, or a damaged file.
    """
    path = results["img_path"]
    try:
        return steps(results)
    except Exception as error:
        said = f"the transforms fail on '{path}' ({reason_of(error)})"
        raise ConfigError(f"{said}; change {section}, or replace the file") from error


def _tuples(value: Any) -> Any:
    """Lists of numbers as tuples: mmcv's transforms insist on them, and a checked configuration holds lists."""
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    if isinstance(value, list):
        numbers = bool(value) and all(isinstance(v, int | float) for v in value)
        return tuple(value) if numbers else [_tuples(v) for v in value]
    return value
