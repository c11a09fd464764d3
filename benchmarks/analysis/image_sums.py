"""The predictions of a recorded transfer, checked against its record, as the sums over images that its metric is of.

Shape suffixes: N images, C classes, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.analysis.statistics import Floats, ImageSums
from benchmarks.tasks.classification.predictions import read_predictions
from benchmarks.transfer.areas import ious, read_areas
from mlomae.common.errors import DataError
from mlomae.records import Record, run_phrase

TOLERANCE = 1e-6  # percentage points between a record's metric and that of its predictions


@dataclass(frozen=True, eq=False)
class TestedRun:
    """Of a run: ``sums`` of ``metric``; and what it was tested on: ``test_set``, a fingerprint, the classes, ``index``
    of each image and ``truth``, labels or pixels of each class."""

    file: str
    metric: str
    sums: ImageSums
    run: str | None
    config_hash: str
    test_set: str
    class_names: tuple[str, ...]
    index: NDArray[np.int64]
    truth: NDArray[np.int64]


def _top1(sums_R1: Floats, images: int) -> Floats:
    return np.asarray(100.0 * sums_R1[:, 0] / images)


def _miou(sums_RF: Floats, images: int) -> Floats:
    """Mean over the classes that are predicted or there; the first half of the sums are intersections."""
    intersect_RC, union_RC = np.split(sums_RF, 2, axis=1)
    return np.asarray(np.nanmean(ious(intersect_RC, union_RC), axis=1))


def _classified(path: Path) -> TestedRun:
    found = read_predictions(path)
    sums = ImageSums(found.images.right[:, None].astype(np.int64), _top1)
    identity = (found.run, found.config_hash, found.test_set, found.class_names)
    return TestedRun(path.name, "top1", sums, *identity, found.images.index, found.images.label)


def _segmented(path: Path) -> TestedRun:
    found = read_areas(path)
    sums = ImageSums(np.concatenate([found.areas.intersect, found.areas.union], axis=1), _miou)
    identity = (found.run, found.config_hash, found.test_set, found.class_names)
    return TestedRun(path.name, "mIoU", sums, *identity, found.areas.index, found.areas.true)


READERS: dict[str, Callable[[Path], TestedRun]] = {"classification": _classified, "segmentation": _segmented}


def read_tested(path: Path, record: Record) -> TestedRun:
    """The predictions at ``path``, which must be those of ``record``.

    Raises DataError, one line that names the file, if it cannot be read, if its configuration or run is another than
    the record's, or if it gives another metric or number of images than the record.
    """
    remedy = "put back the file that the run wrote, or remove it"
    if record["task"] not in READERS:
        raise DataError(f"predictions '{path.name}' are of a {record['task']} record, which has none; remove them")
    found = READERS[record["task"]](path)
    if found.config_hash != record["config_hash"]:
        theirs = f"{found.config_hash}, the record's is {record['config_hash']}"
        raise DataError(f"predictions '{path.name}' belong to the configuration {theirs}; {remedy}")
    expected = run_phrase(record["method"], record["name"], record["seed"])
    if found.run not in (None, expected):
        raise DataError(f"predictions '{path.name}' belong to the run '{found.run}', not to '{expected}'; {remedy}")
    value, images = found.sums.whole(), len(found.index)
    said, counted = record["metrics"].get(found.metric, math.nan), record["metrics"].get("n", images)
    if not abs(value - said) <= TOLERANCE or counted != images:
        ours, theirs = f"{found.metric} {value:.4f} on {images} images", f"{said:.4f} on {counted}"
        raise DataError(f"predictions '{path.name}' give {ours}, the record says {theirs}; {remedy}")
    return found


def check_same_test(a: TestedRun, b: TestedRun) -> None:
    """Raise DataError unless both runs were tested on the same images with the same labels."""
    differing = [
        what
        for what, same in (
            ("test sets (fingerprints)", a.test_set == b.test_set),
            ("classes", a.class_names == b.class_names),
            ("images", np.array_equal(a.index, b.index)),
            ("labels", np.array_equal(a.truth, b.truth)),
        )
        if not same
    ]
    if differing:
        raise DataError(
            f"predictions '{a.file}' and '{b.file}' are of different {differing[0]}, though their records name the "
            "same data; give what differs a recipe of its own"
        )
