"""Scores ranked per image, ties as `per_image` says, and the MMEngine metric that collects them over processes.

Shape suffixes: N images, C classes, K = min(5, C) classes kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from mmengine.registry import METRICS
from torch import Tensor

from benchmarks.tasks.classification.per_image import TOP, PerImage, summarise
from mlomae.backbones.training import GatheringMetric
from mlomae.common.errors import DataError, TrainingError


def rank_scores(scores_NC: Tensor, label_N: Tensor, index_N: Tensor) -> PerImage:
    """Rank classes by score: logits, or log-probabilities, of which -inf ("impossible") is one.

    Raises TrainingError for NaN, +inf or no finite score in a row, DataError for a label outside the classes.
    """
    scores_NC = scores_NC.detach().float()
    finite_N = torch.isfinite(scores_NC.amax(dim=1)) & ~scores_NC.isnan().any(dim=1)
    if not bool(finite_N.all()):
        first = int(index_N.cpu()[~finite_N.cpu()][0])
        raise TrainingError(
            f"scores of {int((~finite_N).sum())} of {len(finite_N)} images are not finite (first: image {first}); "
            "training has diverged, lower the learning rate"
        )
    if len(label_N) and not 0 <= int(label_N.min()) <= int(label_N.max()) < scores_NC.shape[1]:
        raise DataError(
            f"test labels reach outside the model's {scores_NC.shape[1]} classes; train on the same classes"
        )
    top_NK = scores_NC.sort(dim=1, descending=True, stable=True).indices[:, :TOP]  # log_softmax would make ties
    return PerImage(
        index_N.cpu().numpy().astype(np.int64),
        label_N.cpu().numpy().astype(np.int64),
        top_NK.cpu().numpy(),
        scores_NC.log_softmax(dim=1).gather(1, top_NK).cpu().numpy(),
    )


def merge(parts: Sequence[PerImage]) -> PerImage:
    """All images of ``parts``, each once (the first of copies, as samplers pad with), sorted by index.

    Raises DataError if there is none or if copies disagree about the label.
    """
    if not any(len(part) for part in parts):
        raise DataError("evaluation got no images; check the evaluation data set and its batch size")
    every = PerImage(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(PerImage)))
    _, first, which = np.unique(every.index, return_index=True, return_inverse=True)
    if not np.array_equal(every.label, every.label[first][which]):
        raise DataError("two images of the test set share an index but not the label; number each image once")
    return every.take(first)


@METRICS.register_module()
class ClassificationMetric(GatheringMetric):
    """`summarise` of data samples with ``score`` (C,), ``label`` and ``index``, over all processes.

    After ``evaluate`` every rank has the images in ``per_image``, copies removed, sorted.

    Args:
        num_classes: C, whatever classes the test set has.
        prefix: of the metrics' names; none by default.
    """

    def __init__(self, num_classes: int, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.num_classes = num_classes
        self.per_image: PerImage | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        scores_BC = torch.stack([sample["score"] for sample in data_samples])
        if scores_BC.shape[1:] != (self.num_classes,):
            raise DataError(
                f"the model gives scores of shape {tuple(scores_BC.shape[1:])} an image, the metric has "
                f"{self.num_classes} classes; set both from the data set"
            )
        label_B, index_B = (
            torch.stack([torch.as_tensor(sample[key]) for sample in data_samples]).reshape(-1).cpu()
            for key in ("label", "index")
        )
        self.results.append(rank_scores(scores_BC, label_B, index_B))

    def compute_metrics(self, results: list[PerImage], size: int | None = None) -> dict[str, float]:
        self.per_image = merge(results)
        if size not in (None, len(self.per_image)):
            seen = len(self.per_image)
            raise DataError(f"evaluation saw {seen} of {size} images; give every image once, under its own index")
        return summarise(self.per_image, self.num_classes)
