"""Labels and probabilities of new images by a classifier: `mlomae predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch

from mlomae.backbones.batches import evaluation_loader
from mlomae.backbones.finetuned import FineTuned, finetuned_of, is_timm_folder, model_place, read_finetuned
from mlomae.backbones.load import LoadedTransfer, load_transfer
from mlomae.classification.augment import eval_transform
from mlomae.classification.loaders import LabelledImages
from mlomae.classification.model import Classifier
from mlomae.classification.per_image import PerImage
from mlomae.classification.run import ClassificationMetric
from mlomae.classification.table import predictions_table
from mlomae.common.registry import check_range
from mlomae.common.system import usable_cores
from mlomae.data import Source
from mlomae.data.given import given_images
from mlomae.pretraining.devices import training_device

_MANY = 500  # images from which starting processes that decode them saves time


def read_classifier(path: str | Path) -> FineTuned:
    """As `read_finetuned`, and a linear probe, whose backbone must be where it was.

    Raises CheckpointError for a file that holds no classifier, or if the probe's backbone has changed.
    """
    path = model_place(Path(path))
    return read_finetuned(path) if is_timm_folder(path) else classifier_of(load_transfer(path))


def classifier_of(loaded: LoadedTransfer) -> FineTuned:
    """The classifier of a transfer; errors as `read_classifier`."""
    if loaded.state["config"].get("protocol") != "linear":
        return finetuned_of(loaded.path, loaded.state)
    config: Any = loaded.config
    model = cast(Classifier, loaded.build_model())
    if model.ema is not None:  # what was evaluated
        model.head = cast(Any, model.ema.module)
    return FineTuned(config.name, model, loaded.classes, config.backbone.height_width, dict(config.data.evaluate))


@torch.no_grad()
def predict(classifier: FineTuned, images: Source, batch_size: int = 64, num_workers: int = 0) -> PerImage:
    """The best classes of every image, all labels 0. Raises DataError naming an image that cannot be decoded."""
    device = training_device()
    model = classifier.model.to(device)
    numbered = LabelledImages(images, eval_transform(classifier.img_size, **classifier.evaluate), name="eval")
    metric = ClassificationMetric(len(classifier.classes))
    for batch in evaluation_loader(numbered, batch_size, num_workers=num_workers):
        scores_BC = model(batch["image"].to(device)).float().cpu()
        rows = zip(scores_BC, batch["index"], strict=True)
        metric.process([{"score": score_C, "label": 0, "index": index} for score_C, index in rows])
    metric.evaluate(len(images))
    return metric.per_image


def predict_files(model: str | Path | FineTuned, paths: Sequence[str | Path], batch_size: int = 64) -> pd.DataFrame:
    """The table of `predictions_table` of the images that ``paths`` name, by a classifier or the one at a path.

    Raises ConfigError for a batch size below 1, and what `read_classifier` and `given_images` raise.
    """
    check_range("", "[1, inf)", batch_size=batch_size)
    images = given_images(list(paths))
    classifier = model if isinstance(model, FineTuned) else read_classifier(model)
    workers = min(8, usable_cores()) if len(images) >= _MANY else 0
    found = predict(classifier, images, batch_size, workers)
    return predictions_table(found, [images.relative_path(i) for i in found.index], classifier.classes, labelled=False)
