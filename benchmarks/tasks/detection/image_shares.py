"""The file of a detection run: the share that every test image has in the box AP, by which two detectors are compared
image by image.

AP is no sum over images, but its jackknife pseudo-values are numbers of images whose mean it is:

    p_i = AP + (N - 1)(mean over j of AP_-j - AP_-i),   AP_-i without image i

Resampling them resamples AP to first order (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11).
Free of torch and pycocotools, so that tables can read the file.

Shape legend: N images, C classes, T thresholds of IoU, D detections of a class by falling score, R replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlomae.backbones.predictions import Arrays, PredictionFormat
from mlomae.backbones.task import Floats, ImageSums, TestedRun

RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads the precision
UNIT = 1e-9  # of a percentage point, in which the shares are whole numbers: sums are exact in any order
_CELLS = 2**21  # numbers of one block of replicates x detections


class Matches(NamedTuple):
    """The detections of one class in all test images: ``image_D`` rows of images, ``hit_TD`` those that match an
    object, ``counted_TD`` those that COCO counts (not on a crowd). ``objects_N``: objects of the class."""

    image_D: NDArray[np.int64]
    hit_TD: NDArray[np.bool_]
    counted_TD: NDArray[np.bool_]
    objects_N: NDArray[np.int64]


def class_precision(found: Matches, weights_RN: Floats) -> Floats:
    """COCO's AP of one class in percent, (R,), where image i is there ``weights_RN[:, i]`` times; NaN without objects.

    The precision at a recall is the highest at that recall or above; 0 where the recall is not reached.
    """
    objects_R = weights_RN @ found.objects_N.astype(np.float64)
    if not len(found.image_D):
        return np.where(objects_R > 0, 0.0, np.nan)
    blocks = np.array_split(np.arange(len(weights_RN)), -(-len(weights_RN) * len(found.image_D) // _CELLS))
    return np.concatenate([_of_block(found, weights_RN[rows], objects_R[rows]) for rows in blocks if len(rows)])


def _of_block(found: Matches, weights_RN: Floats, objects_R: Floats) -> Floats:
    weights_RD, total_R = weights_RN[:, found.image_D], np.zeros(len(weights_RN))
    for hit_D, counted_D in zip(found.hit_TD, found.counted_TD, strict=True):
        right_RD = np.cumsum(weights_RD * (hit_D & counted_D), axis=1)
        wrong_RD = np.cumsum(weights_RD * (~hit_D & counted_D), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            recall_RD = right_RD / objects_R[:, None]
        precision_RD = right_RD / (right_RD + wrong_RD + np.spacing(1))
        highest_RD = np.maximum.accumulate(precision_RD[:, ::-1], axis=1)[:, ::-1]
        for r, (recall_D, highest_D) in enumerate(zip(recall_RD, highest_RD, strict=True)):
            place = np.searchsorted(recall_D, RECALLS, side="left")
            total_R[r] += highest_D[place[place < len(highest_D)]].sum() / len(RECALLS)
    return np.where(objects_R > 0, 100.0 * total_R / len(found.hit_TD), np.nan)


def average_precision(classes: Sequence[Matches], weights_RN: Floats) -> Floats:
    """COCO's AP in percent, (R,): the mean over the classes that have objects."""
    return np.asarray(np.nanmean([class_precision(found, weights_RN) for found in classes], axis=0))


def shares(classes: Sequence[Matches], images: int) -> NDArray[np.int64]:
    """The pseudo-values p (N,) of ``images`` images in units of `UNIT`; their mean is AP."""
    without_CN = np.empty((len(classes), images))
    for found, row_N in zip(classes, without_CN, strict=True):
        row_N[:] = class_precision(found, np.ones((1, images)))
        concerned = np.flatnonzero(found.objects_N | np.bincount(found.image_D, minlength=images))
        size = max(1, _CELLS // images)
        for start in range(0, len(concerned), size):
            rows = concerned[start : start + size]
            weights_RN = np.ones((len(rows), images))
            weights_RN[np.arange(len(rows)), rows] = 0.0
            row_N[rows] = class_precision(found, weights_RN)
    whole = float(average_precision(classes, np.ones((1, images)))[0])
    without_N = np.nanmean(without_CN, axis=0)
    return np.rint((whole + (images - 1) * (without_N.mean() - without_N)) / UNIT).astype(np.int64)


@dataclass(frozen=True)
class ImageShares:
    """``index`` (N,) of the image, ``box_AP`` (N,) its share (`shares`), ``objects`` (N, C) how many it has."""

    index: NDArray[np.int64]
    box_AP: NDArray[np.int64]
    objects: NDArray[np.int64]


def _problem(arrays: Arrays, classes: int) -> str | None:
    n = len(arrays["index"])
    for name, shape in {"box_AP": (n,), "objects": (n, classes)}.items():
        if not n or arrays[name].shape != shape:
            return f"'{name}' has shape {arrays[name].shape}, not {shape}"
    return "an image has fewer objects than none" if (arrays["objects"] < 0).any() else None


FORMAT = PredictionFormat(
    "mlomae detection shares 1", ImageShares, {"index": ("i", 1), "box_AP": ("i", 1), "objects": ("i", 2)}, _problem
)


def mean_share(sums_RF: Floats, images: int) -> Floats:
    """AP (R,) of sums of shares over ``images`` images."""
    return sums_RF[:, 0] * UNIT / images


def read_tested(path: Path) -> TestedRun:
    """The file as the tables compare runs; errors as ``FORMAT.read``."""
    found, identity = FORMAT.read(path)
    sums = ImageSums(found.box_AP[:, None], mean_share)
    return TestedRun(metric="box_AP", sums=sums, index=found.index, truth=found.objects, **identity)
