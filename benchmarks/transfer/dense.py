"""Transfers to dense tasks: models and transforms of mmseg and mmdet around our backbone and our data.

Modules that import mmseg or mmdet import this one first: it gives mmcv its operators, without which mmdet keeps
functions that fail for the rest of the process. That holds for workers too, which import the module of a data set.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import get_world_size
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope, Registry
from torch import nn

from mlomae.backbones import mmcv_ops
from mlomae.backbones.batches import ImageLoader, NumberedImages, evaluation_loader, training_loader
from mlomae.backbones.config import DenseConfig
from mlomae.backbones.feature_vit import FeatureViT
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.backbones.run import Outcome, TransferRun, TransferSteps
from mlomae.backbones.training import GatheringMetric, TransferStep
from mlomae.common.errors import ConfigError, reason_of
from mlomae.common.random_keys import root_key, seeded
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.pretraining.devices import training_device

mmcv_ops.install()

PIXELS: dict[str, Any] = {  # of a data_preprocessor: from uint8 in BGR to what the backbone was pretrained on
    "bgr_to_rgb": True,
    "mean": [255 * m for m in IMAGENET_MEAN],
    "std": [255 * s for s in IMAGENET_STD],
}


class DenseSteps(TransferSteps):
    """What segmentation and detection have in common; ``metric`` holds what was measured."""

    config: DenseConfig
    metric: Any

    @abstractmethod
    def images(self, train: bool) -> NumberedImages:
        """The training or the test images, after the transforms of the configuration."""

    @abstractmethod
    def create_metric(self, images: Any) -> GatheringMetric:
        """The metric of the test ``images``."""

    @abstractmethod
    def saved_modules(self, model: Any) -> Mapping[str, nn.Module]:
        """The modules that a checkpoint holds, by name."""

    @abstractmethod
    def class_metrics(self) -> dict[str, Any]:
        """The metric of each class, for the record."""

    def train_and_test(self, model: nn.Module, run: TransferRun) -> Outcome:
        loader, test_loader = (create_loader(self.config, self.images(train), train) for train in (True, False))
        self.metric = self.create_metric(test_loader.dataset)
        step = dense_step(model, self.saved_modules(model), self.config)
        trained = run.train(step, loader, test_loader, self.metric)
        return replace(trained, metrics={**self.metric.summary, **trained.metrics, **self.class_metrics()})


def create_loader(config: DenseConfig, images: NumberedImages, train: bool) -> ImageLoader:
    """In training all batches of a run: ``train.iterations`` of ``data.batch_size`` images over all processes. In
    evaluation every image once over all ranks, one by one.

    The transforms are tried on one image first, so that wrong ones fail before anything is trained; errors as
    ``images`` and `EpochBatches`.
    """
    images[0]
    options = {"num_workers": config.data.num_workers, "collate_fn": pseudo_collate}
    if not train:
        return evaluation_loader(images, **options)
    return training_loader(images, config.data.batch_size, iterations=config.train.iterations, **options)


def dense_step(model: nn.Module, modules: Mapping[str, nn.Module], config: DenseConfig) -> TransferStep:
    """The update of a model: layer-wise rates in the backbone, the full rate in neck and heads.

    ``modules``: what a checkpoint holds of the model, by name. The model is moved to the training device.
    """
    model, o = model.to(training_device()), config.optim
    groups = layer_decay_groups(model, o.lr, o.weight_decay, o.layer_decay)
    return TransferStep(model, modules, groups, config, decay=config.train.decay)


@contextmanager
def _building(registry: Registry, section: str) -> Iterator[None]:
    """Build things of ``registry``; any error becomes a ConfigError that names the config section."""
    try:
        with DefaultScope.overwrite_default_scope(registry.scope):  # an earlier run of this process leaves "mmengine"
            yield
    except Exception as error:  # constructors assert, and raise anything
        raise ConfigError(f"config section '{section}' is refused by {registry.scope} ({reason_of(error)})") from error


def build_dense(registry: Registry, section: dict[str, Any], backbone: FeatureViT, name: str, seed: int) -> Any:
    """The model of ``registry`` that a complete ``section`` describes; fresh weights depend on (seed, name) alone.

    SyncBN becomes BatchNorm unless there are several processes with a GPU each: the others cannot run it.
    Raises ConfigError for a section that mmseg or mmdet refuses.
    """
    section = {**section, "backbone": {"type": lambda: backbone}}  # it is built already
    with seeded(root_key(seed, name)), _building(registry, "model"):
        model = registry.build(ConfigDict(section))
        model._dump_init_info = lambda: None  # MMEngine would log one line or more for every parameter
        model.init_weights()
    if torch.cuda.is_available() and get_world_size() > 1:
        return model
    return revert_sync_batchnorm(model)


def build_pipeline(registry: Registry, steps: list[dict[str, Any]], section: str) -> Compose:
    """The transforms of ``registry`` by name; raises ConfigError, naming the section of the configuration, for one that
    it does not have or that refuses its options."""
    with _building(registry, section):
        return Compose([registry.build(_tuples(step)) for step in steps])


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
