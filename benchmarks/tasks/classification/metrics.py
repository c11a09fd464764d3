"""Classes ranked by score for each image, with ties as in `per_image`, and the metric that collects them.

Shape suffixes: N images, C classes, K = min(5, C) classes kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
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


class ClassificationMetric(GatheringMetric):
    """`summarise` of data samples with ``score`` (C,), ``label`` and ``index``, over all processes.

    After ``evaluate`` every rank has the images in ``per_image``, sorted. ``num_classes``: C, whatever classes the test
    set has.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.per_image: PerImage

    def process(self, data_samples: Sequence[dict[str, Any]]) -> None:
        scores_BC = torch.stack([sample["score"] for sample in data_samples])
        label_B, index_B = (torch.tensor([int(sample[key]) for sample in data_samples]) for key in ("label", "index"))
        images = rank_scores(scores_BC, label_B, index_B)
        self.rows += zip(images.index, images.label, images.top_classes, images.top_log_probs, strict=True)

    def compute(self, rows: list[Any]) -> dict[str, float]:
        self.per_image = PerImage(*map(np.array, zip(*rows, strict=True)))
        return summarise(self.per_image, self.num_classes)
