"""The file of a segmentation run: pixels of every test image and class, and the IoUs that follow from them.

Free of torch and mmseg, so that tables can read it. Shape legend: N images, C classes, R replicates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.backbones.predictions import Arrays, PredictionFormat
from mlomae.backbones.task import Floats, ImageSums, TestedRun


@dataclass(frozen=True)
class PixelCounts:
    """Numbers of pixels of each image and class, (N, C) int64: correct, predicted and true ones; ``index`` is (N,)."""

    index: NDArray[np.int64]
    intersect: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        return self.predicted + self.true - self.intersect


def ious(intersect: NDArray[Any], union: NDArray[Any]) -> NDArray[np.float64]:
    """IoUs in percent from sums of pixels, any shape; NaN where there is no pixel."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * intersect / union


def class_ious(counts: PixelCounts) -> NDArray[np.float64]:
    """IoU of each class in percent, (C,); NaN for a class that is neither predicted nor in the labels."""
    return ious(counts.intersect.sum(axis=0), counts.union.sum(axis=0))


def miou(sums_RF: Floats, images: int) -> Floats:
    """Mean over the classes that are predicted or in the labels; the first half of the sums are intersections."""
    intersect_RC, union_RC = np.split(sums_RF, 2, axis=1)
    return np.asarray(np.nanmean(ious(intersect_RC, union_RC), axis=1))


def _problem(arrays: Arrays, classes: int) -> str | None:
    n = len(arrays["index"])
    for name in COUNTS:
        found = arrays[name]
        if found.shape != (n, classes) or not n:
            return f"'{name}' has type {found.dtype} and shape {found.shape}, not int64 and {(n, classes)}"
    intersect, predicted, true = (arrays[name] for name in COUNTS)
    if intersect.min() < 0 or (intersect > np.minimum(predicted, true)).any():
        return "more pixels are right than there are"
    return None


COUNTS = ("intersect", "predicted", "true")
FORMAT = PredictionFormat(
    "mlomae segmentation areas 1",
    PixelCounts,
    {"index": ("i", 1), **dict.fromkeys(COUNTS, ("i", 2))},
    _problem,
    optional=("run",),
)


def read_tested(path: Path) -> TestedRun:
    """The file as the tables compare runs; errors as ``FORMAT.read``."""
    counts, identity = FORMAT.read(path)
    sums = ImageSums(np.concatenate([counts.intersect, counts.union], axis=1), miou)
    return TestedRun(metric="mIoU", sums=sums, index=counts.index, truth=counts.true, **identity)
