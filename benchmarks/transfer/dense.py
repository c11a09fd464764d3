"""Transfers to dense tasks: models and transforms of mmseg and mmdet around our backbone and our data; pictures.

Modules that import mmseg or mmdet import this one first: it gives mmcv its operators, without which mmdet keeps
functions that fail for the rest of the process. That holds for workers too, which import the module of a data set.
"""

import colorsys
import importlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mmengine.registry
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.dist import get_world_size
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope, Registry
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mlomae.backbones import mmcv_ops
from mlomae.backbones.batches import EpochBatches, ImageLoader, NumberedImages, evaluation_loader
from mlomae.backbones.config import DenseConfig, DenseDataConfig, values_of
from mlomae.backbones.feature_vit import FeatureViT
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.backbones.run import Outcome, TransferRun, TransferSteps
from mlomae.backbones.training import GatheringMetric, TransferStep
from mlomae.common.atomic import replacing
from mlomae.common.errors import ConfigError, reason_of
from mlomae.common.random_keys import root_key, seeded
from mlomae.data import IGNORE
from mlomae.data.images import ImageFiles
from mlomae.models.architecture import section_of
from mlomae.models.loading import LoadReport
from mlomae.pretraining.devices import training_device

mmcv_ops.install()

_OPERATORS = {"nms", "soft_nms", "RoIAlign", "RoIPool"}  # types that mmcv looks up by itself
_GAP = 4  # pixels between the parts of a picture
_GOLDEN = 0.6180339887498949  # steps of the golden ratio spread hues evenly for any number of classes


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

    def train_and_test(self, model: Any, run: TransferRun) -> Outcome:
        loader = self.loader(train=True)
        test_loader, self.metric = self.create_test()
        trained = run.train(self.step(model), loader, test_loader, self.metric, section_of(model.backbone.vit))
        return replace(trained, metrics={**self.metric.summary, **trained.metrics, **self.class_metrics()})

    def create_test(self) -> tuple[ImageLoader, GatheringMetric]:
        loader = self.loader(train=False)
        return loader, self.create_metric(loader.dataset)

    def loader(self, train: bool) -> ImageLoader:
        """In training all batches of a run: ``train.iterations`` of ``data.batch_size`` images over all processes. In
        evaluation every image once over all ranks, one by one.

        The transforms are tried on one image first, so that wrong ones fail before anything is trained; errors as
        `images` and `EpochBatches`.
        """
        images, config = self.images(train), self.config
        images[0]
        options = {"num_workers": config.data.num_workers, "collate_fn": pseudo_collate}
        if not train:
            return evaluation_loader(images, **options)
        batches = EpochBatches(images, config.data.batch_size, iterations=config.train.iterations)
        return ImageLoader(images, batch_sampler=batches, **options)

    def step(self, model: nn.Module) -> TransferStep:
        """The update of a model, moved to the training device: layer-wise rates in the backbone, the full rate in neck
        and heads."""
        model, o = model.to(training_device()), self.config.optim
        groups = layer_decay_groups(model, o.lr, o.weight_decay, o.layer_decay)
        return TransferStep(model, self.saved_modules(model), groups, self.config, decay=self.config.train.decay)


def _types_in(value: Any) -> Iterator[Any]:
    """Every ``type`` in a section, at any depth."""
    if isinstance(value, dict):
        yield from [value["type"]] if "type" in value else []
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _types_in(part)


def _check_types(section: Any) -> None:
    """Raise ConfigError for a type that is not the name of a registered one: mmengine imports and calls whatever a
    dotted path leads to, and mmcv evaluates some names. So is "Pretrained" refused, which unpickles a file."""
    for scope in {kind.partition(".")[0] for kind in _types_in(section) if isinstance(kind, str)} & {"mmdet", "mmseg"}:
        importlib.import_module(f"{scope}.models")  # of the other library, which registers what it has
    roots = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    nodes = [node for root in roots for node in (root, *root.children.values())]
    known = {name for node in nodes for key in node.module_dict for name in (key, f"{node.scope}.{key}")} | _OPERATORS
    for kind in _types_in(section):
        if not isinstance(kind, str) or kind not in known:
            raise ConfigError(f"type {kind!r} is not in a registry; give the name of a registered one")
        if kind.rpartition(".")[2] == "Pretrained":
            raise ConfigError("an init_cfg loads weights, 'Pretrained'; leave it out, only backbone.weights are read")


@contextmanager
def _building(registry: Registry, section: str, given: Any) -> Iterator[None]:
    """Build things of ``registry`` from ``given``; any error becomes a ConfigError that names the config section.

    Whatever constructors load by themselves, it holds no code.
    """
    safe = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(safe)
    os.environ[safe] = "1"
    try:
        _check_types(given)
        with DefaultScope.overwrite_default_scope(registry.scope):  # an earlier run of this process leaves "mmengine"
            yield
    except Exception as error:  # constructors assert, and raise anything
        raise ConfigError(f"config section '{section}' is refused by {registry.scope} ({reason_of(error)})") from error
    finally:
        if before is None:
            del os.environ[safe]
        else:
            os.environ[safe] = before


def build_dense(registry: Registry, section: dict[str, Any], backbone: FeatureViT, name: str, seed: int) -> Any:
    """The model of ``registry`` that a complete ``section`` describes; fresh weights depend on (seed, name) alone.

    SyncBN becomes BatchNorm unless there are several processes with a GPU each: the others cannot run it.
    Raises ConfigError for a section that mmseg or mmdet refuses.
    """
    with seeded(root_key(seed, name)), _building(registry, "model", section):
        ready = {"type": lambda: backbone}  # it is built already
        model = registry.build(ConfigDict({**section, "backbone": ready}))
        model._dump_init_info = lambda: None  # MMEngine would log one line or more for every parameter
        model.init_weights()
    if torch.cuda.is_available() and get_world_size() > 1:
        return model
    return revert_sync_batchnorm(model)


@contextmanager
def tried(model: nn.Module) -> Iterator[None]:
    """Run a model before it is trained, in evaluation mode and without a gradient; any error becomes a ConfigError:
    neck or heads do not fit the backbone's maps."""
    model.eval()
    try:
        with seeded(0), torch.no_grad():
            yield
    except Exception as error:
        raise ConfigError(f"config section 'model' does not fit the backbone's maps ({reason_of(error)})") from error
    model.train()


def pixels(data: DenseDataConfig, report: LoadReport) -> dict[str, Any]:
    """Of a data_preprocessor: from uint8 in BGR to what the backbone was pretrained on. ConfigError if that is known to
    be something else, or for wrong values."""
    with values_of("data.mean and data.std"):
        report.check_pixels("data", data.mean, data.std)
        return {"bgr_to_rgb": True, **{key: [255 * v for v in getattr(data, key)] for key in ("mean", "std")}}


class TransformedImages(NumberedImages):
    """Images after the transforms ``steps`` of ``registry``, mmseg's or mmdet's, which have random draws in training.

    Raises ConfigError, naming ``section`` of the configuration, for a transform that the registry does not have or that
    refuses its options.
    """

    def __init__(self, registry: Registry, steps: list[dict[str, Any]], *, train: bool, seed: int, name: str) -> None:
        super().__init__(seed, name)
        self.train, self.section = train, "data.augment" if train else "data.evaluate"
        with _building(registry, self.section, steps):
            self.steps = Compose([registry.build(as_tuples(step)) for step in steps])

    def transform(self, results: dict[str, Any]) -> Any:
        """What the transforms make of ``results``, with ``img_path``, or None if they drop the image.

        Raises ConfigError, naming file and section, if they fail: a transform that does not fit, or a damaged file.
        """
        path = results["img_path"]
        try:
            return self.steps(results)
        except Exception as error:
            said = f"the transforms fail on '{path}' ({reason_of(error)})"
            raise ConfigError(f"{said}; change {self.section}, or replace the file") from error


def as_tuples(value: Any) -> Any:
    """Lists of numbers as tuples: mmcv's transforms insist on them, and a checked configuration holds lists."""
    if isinstance(value, dict):
        return {key: as_tuples(v) for key, v in value.items()}
    if isinstance(value, list):
        numbers = bool(value) and all(isinstance(v, int | float) for v in value)
        return tuple(value) if numbers else [as_tuples(v) for v in value]
    return value


# --- pictures of test images ------------------------------------------------------------------------------------------


def palette(num_classes: int) -> NDArray[np.uint8]:
    """(256, 3) RGB: one colour for each class, black for pixels without a label."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for i in range(min(num_classes, IGNORE)):
        hue, value = i * _GOLDEN % 1.0, (1.0, 0.75, 0.5)[i // 7 % 3]
        colours[i] = [round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.85, value)]
    return colours


def evenly_spaced(images: int, count: int) -> list[int]:
    """``count`` indices of 0..images-1 from the first one on, rising; all of them if ``count`` is larger."""
    return sorted({i * images // count for i in range(count)})


def picture_names(images: ImageFiles) -> list[str]:
    """Where the picture of each image goes, below a folder: its own path as .png; after its own ending, as
    ``x.jpg.png``, if two images differ in that alone."""
    files = [images.relative_path(i) for i in range(len(images))]
    bare = [os.path.splitext(file)[0] for file in files]
    return [f"{name}.png" for name in (bare if len(set(bare)) == len(bare) else files)]


def overlay(image_HWC: NDArray[Any], labels_HW: NDArray[Any], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image blended with the colours of its labels; unlabelled pixels are dark."""
    mixed: NDArray[np.uint8] = (0.4 * image_HWC + 0.6 * colours[labels_HW]).astype(np.uint8)
    return mixed


def save_overlay(
    path: Path, image_HWC: NDArray[Any], true_HW: NDArray[Any], predicted_HW: NDArray[Any], num_classes: int
) -> None:
    """Image, labels and prediction side by side, as a PNG; small images are enlarged."""
    colours = palette(num_classes)
    gap = np.full((image_HWC.shape[0], _GAP, 3), 255, dtype=np.uint8)
    parts = [image_HWC, gap, overlay(image_HWC, true_HW, colours), gap, overlay(image_HWC, predicted_HW, colours)]
    picture = Image.fromarray(np.concatenate(parts, axis=1))
    factor = max(1, 256 // image_HWC.shape[0])
    enlarged = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    with replacing(path) as temporary:
        enlarged.save(temporary, format="PNG")
