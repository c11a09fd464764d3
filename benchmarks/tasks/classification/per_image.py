"""What a model says about each test image, and the accuracies of that; free of torch, so that tables can read it.

Ties: of classes with the same score the one with the lower index ranks first, on every device. (scikit-learn's
``top_k_accuracy_score`` puts the higher one first.)

Shape suffixes: N images, C classes, K = min(5, C) classes kept.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

TOP = 5


@dataclass(frozen=True, eq=False)
class PerImage:
    """What a model says about each image.

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

    def take(self, rows: NDArray[np.int64]) -> PerImage:
        return PerImage(*(getattr(self, field.name)[rows] for field in fields(self)))


def per_class(images: PerImage, num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images and right answers of each class, both (C,) int64."""
    total_C = np.bincount(images.label, minlength=num_classes)
    return total_C, np.bincount(images.label[images.right], minlength=num_classes)


def summarise(images: PerImage, num_classes: int) -> dict[str, float]:
    """top1, top5 and mean_per_class in percent, and the counts n and classes_without_images.

    top5 is top-C with fewer than five classes. mean_per_class is the mean of the classes' own top-1, over those that
    have test images (scikit-learn's balanced accuracy).
    """
    total_C, right_C = per_class(images, num_classes)
    seen_C = total_C > 0
    return {
        "top1": 100.0 * float(images.right.mean()),
        "top5": 100.0 * float((images.top_classes == images.label[:, None]).any(axis=1).mean()),
        "mean_per_class": 100.0 * float((right_C[seen_C] / total_C[seen_C]).mean()),
        "n": len(images),
        "classes_without_images": int((~seen_C).sum()),
    }
