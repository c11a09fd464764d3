"""The predictions for each test image, their accuracies and their file; free of torch, for the tables.

Ties: of classes with the same score the one with the lower index ranks first, on every device. (scikit-learn's
``top_k_accuracy_score`` puts the higher one first.)

Shape suffixes: N images, C classes, K = min(5, C) classes kept.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlomae.backbones.predictions import Arrays, PredictionFormat
from mlomae.backbones.task import Floats, ImageSums, TestedRun

TOP = 5


@dataclass(frozen=True, eq=False)
class PerImage:
    """The predictions of a model for each image.

    Attributes:
        index: (N,) int64, which image of the test set.
        label: (N,) int64, its class.
        top_classes: (N, K) int64, best first. top_log_probs: (N, K) float32, their log-probabilities.
    """

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    top_classes: NDArray[np.int64]
    top_log_probs: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the best class."""
        return self.top_classes[:, 0]

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) bool, whether the best class is the label."""
        return self.predicted == self.label


def summarise(images: PerImage, num_classes: int) -> dict[str, float]:
    """top1, top5 and mean_per_class in percent, and the counts n and classes_without_images.

    top5 is top-C with fewer than five classes. mean_per_class is the mean of the classes' own top-1, over those that
    have test images (scikit-learn's balanced accuracy).
    """
    total_C = np.bincount(images.label, minlength=num_classes)
    right_C = np.bincount(images.label[images.right], minlength=num_classes)
    seen_C = total_C > 0
    return {
        "top1": 100.0 * float(images.right.mean()),
        "top5": 100.0 * float((images.top_classes == images.label[:, None]).any(axis=1).mean()),
        "mean_per_class": 100.0 * float((right_C[seen_C] / total_C[seen_C]).mean()),
        "n": len(images),
        "classes_without_images": int((~seen_C).sum()),
    }


def _problem(arrays: Arrays, classes: int) -> str | None:
    index, label, top, log_probs = (arrays[name] for name in FORMAT.arrays)
    n, width = len(index), min(TOP, classes)
    if not n or len(label) != n or top.shape != (n, width) or log_probs.shape != (n, width):
        return f"its arrays do not hold {n} images and {width} of {classes} classes each"
    for name, values in (("label", label), ("top_classes", top)):
        if values.min() < 0 or values.max() >= classes:
            return f"'{name}' reaches outside its {classes} classes"
    if np.isnan(log_probs).any() or (log_probs[:, 1:] > log_probs[:, :-1]).any() or (log_probs > 1e-6).any():
        return "its log-probabilities are not sorted numbers up to 0"
    return None


FORMAT = PredictionFormat(
    "mlomae classification predictions 1",
    PerImage,
    {"index": ("i", 1), "label": ("i", 1), "top_classes": ("i", 2), "top_log_probs": ("f", 2)},
    _problem,
)


def top1(sums_R1: Floats, images: int) -> Floats:
    """Top-1 in percent from the number of images that are right."""
    return np.asarray(100.0 * sums_R1[:, 0] / images)


def read_tested(path: str | Path) -> TestedRun:
    """The file as the tables compare runs; errors as ``FORMAT.read``."""
    images, identity = FORMAT.read(path)
    sums = ImageSums(images.right[:, None].astype(np.int64), top1)
    return TestedRun(metric="top1", sums=sums, index=images.index, truth=images.label, **identity)
