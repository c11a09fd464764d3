"""The file of a classification run: the best classes of every test image, with their log-probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.tasks.classification.per_image import TOP, PerImage
from benchmarks.transfer.predictions import Arrays, PredictionFormat
from mlomae.backbones.task import Floats, ImageSums, TestedRun


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


def read_tested(path: Path) -> TestedRun:
    """The file as tables compare it; errors as ``FORMAT.read``."""
    found = FORMAT.read(path)
    sums = ImageSums(found.images.right[:, None].astype(np.int64), top1)
    return found.tested(path, "top1", sums, found.images.index, found.images.label)
