"""Reads an instance annotation file in COCO's format and verifies whatever can be without opening an image.

Objects that COCO's tools leave out are left out and counted, as mmdet does it: those flagged ``ignore``, less than a
pixel wide or high, wholly outside their image, or without area (COCO's own train2017 has two of height 0). So are those
whose polygons all have less than three corners. Anything else that is not as it should be is an error.

Source: the format at cocodataset.org/#format-data. Shape suffixes: I images, N objects.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import DataError
from mlomae.data.formats.coco_masks import Masks, are_numbers, has_outline, mask_fault
from mlomae.data.formats.coco_rows import REMEDY, Rows


@dataclass(frozen=True)
class Objects:
    """N objects in the order of their images; those of image i from ``first[i]`` to ``first[i + 1] - 1``.

    Attributes:
        ids: (N,) int64, of the annotations. labels: (N,) int64, indices into the categories.
        boxes: (N, 4) float64: x, y, width, height in pixels. areas: (N,) float64, pixels, as stated. crowds: (N,) bool.
        first: (I + 1,) int64.
        masks: as in the file.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    first: NDArray[np.int64]
    masks: Masks


@dataclass(frozen=True)
class CocoFile:
    """Images in the order of the file, (I,) ids, file names and (I, 2) height and width; category names by their ids,
    ascending; objects, and how many were left out, by reason."""

    image_ids: NDArray[np.int64]
    files: list[str]
    sizes: NDArray[np.int64]
    categories: dict[int, str]
    objects: Objects
    dropped: dict[str, int]


def read_coco(path: Path, name: str) -> CocoFile:
    """Read and verify an annotation file.

    Args:
        path: the file.
        name: of the data set, for messages.

    Raises DataError, one line that names the image, category or annotation: the file cannot be read, is no JSON, or of
    another kind; an entry lacks a value or has one of the wrong kind; an id, file or category is there twice; an
    annotation refers to what is not listed, or its box or mask is malformed; no object is left.
    """
    with _no_collection():
        return _parse(_load(path, f"{name}: {path}"), f"{name}: {path}")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector, which would walk the millions of lists of a large file again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _parse(content: dict[str, Any], where: str) -> CocoFile:
    images, categories, annotations = (Rows(where, content, kind) for kind in ("images", "categories", "annotations"))
    files = _files(images)
    sizes = np.stack([images.whole(key, least=1) for key in ("height", "width")], axis=1)
    names = categories.column("name", {str})
    categories.refuse_twice("name", names)
    by_id = dict(sorted(zip(categories.ids.tolist(), names, strict=True)))
    objects, dropped = _objects(annotations, images.ids.tolist(), sizes, list(by_id))
    return CocoFile(images.ids, files, sizes, by_id, objects, dropped)


def _load(path: Path, where: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{where} cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({str(error)[:80]}); fetch the file again") from error
    if not isinstance(content, dict):
        kind = "a list, as files of results are" if isinstance(content, list) else "a single value"
        raise DataError(f"{where} is {kind}, not COCO annotations; name a file like instances_train2017.json")
    return content


def _files(images: Rows) -> list[str]:
    files = [os.path.normpath(file) for file in images.column("file_name", {str})]
    for at, file in enumerate(files):
        if file == "." or os.path.isabs(file) or file.split(os.sep)[0] == "..":
            raise images.fault(at, f"has file_name {file!r:.60}, which is no path inside the folder of images")
    images.refuse_twice("file_name", files)
    return files


def _objects(
    rows: Rows, image_ids: Sequence[int], sizes: NDArray[np.int64], categories: list[int]
) -> tuple[Objects, dict[str, int]]:
    image, label = rows.refer("image_id", image_ids, "images"), rows.refer("category_id", categories, "categories")
    boxes, areas, crowds = _boxes(rows), rows.numbers("area"), _crowds(rows)
    ignored = np.array([bool(flag) for flag in rows.column("ignore", {int, bool, type(None)})])
    kept, dropped = _keep(boxes, areas, ignored, sizes[image])
    order = np.flatnonzero(kept)[np.argsort(image[kept], kind="stable")]
    rows.choose(order)
    masks = rows.column("segmentation", {list, dict})
    heights, widths = sizes[image[order]].T.tolist()
    for at, (mask, height, width) in enumerate(zip(masks, heights, widths, strict=True)):
        fault = mask_fault(mask, height, width)
        if fault is not None:
            raise rows.fault(at, f"has a mask that {fault}")
    outlined = [has_outline(mask) for mask in masks]
    order = order[outlined]
    dropped["without a polygon of three corners"] = len(masks) - len(order)
    if not len(order):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
        raise DataError(f"{rows.where}: no object is left ({reasons}); {REMEDY}")
    objects = Objects(
        ids=rows.ids[outlined],
        labels=label[order],
        boxes=boxes[order],
        areas=areas[order],
        crowds=crowds[order],
        first=np.searchsorted(image[order], np.arange(len(sizes) + 1)),
        masks=Masks(compress(masks, outlined)),
    )
    return objects, dropped


def _keep(
    boxes: NDArray[np.float64], areas: NDArray[np.float64], ignored: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """(N,) which objects COCO's tools use, and how many they do not, by the first reason that holds."""
    (x, y, width, height), (image_height, image_width) = boxes.T, sizes.T
    across = np.minimum(x + width, image_width) - np.maximum(x, 0)
    down = np.minimum(y + height, image_height) - np.maximum(y, 0)
    reasons = {
        "flagged ignore": ignored,
        "under a pixel wide or high": (width < 1) | (height < 1),
        "outside the image": (across <= 0) | (down <= 0),
        "without area": areas <= 0,
    }
    kept, dropped = np.ones(len(boxes), dtype=bool), {}
    for reason, holds in reasons.items():
        dropped[reason] = int((holds & kept).sum())
        kept &= ~holds
    return kept, dropped


def _crowds(rows: Rows) -> NDArray[np.bool_]:
    flags = rows.column("iscrowd", {int, bool}, default=0)
    if not set(flags) <= {0, 1}:
        at = next(i for i, flag in enumerate(flags) if flag not in (0, 1))
        raise rows.fault(at, f"has iscrowd {flags[at]!r:.40}, neither 0 nor 1")
    return np.array(flags, dtype=bool)


def _boxes(rows: Rows) -> NDArray[np.float64]:
    boxes = rows.column("bbox", {list})
    numbers = list(chain.from_iterable(boxes))
    if set(map(len, boxes)) != {4} or not are_numbers(numbers):
        at = next(i for i, box in enumerate(boxes) if len(box) != 4 or not are_numbers(box))
        raise rows.fault(at, f"has bbox {boxes[at]!r:.60}, not x, y, width, height in pixels")
    return np.array(numbers, dtype=np.float64).reshape(-1, 4)
