"""What `mlomae data check` says of sets with objects, besides what it says of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import BackendError, DataError
from mlomae.data.detections import Detections
from mlomae.data.formats.coco_masks import FORMS
from mlomae.data.sets.coco import PREFIX, SUFFIX, annotated_splits

SIZES = {"small": 32**2, "medium": 96**2}
"""Pixels below which COCO's evaluation calls an object so; the rest are large."""


def find_object_splits(base: Path) -> list[str]:
    """The parts that have an annotation file, training first. Raises DataError if there is none."""
    found = annotated_splits(base)
    if not found:
        expected = base / "annotations" / f"{PREFIX}train{SUFFIX}"
        raise DataError(f"coco_folder: {base} has no annotation files; expected {expected} and the like")
    return found


def check_objects(source: Detections, decode: bool, problems: list[str]) -> list[str]:
    """Lines on the objects of one part; appends to ``problems``. Raises BackendError if all masks are to be decoded
    and pycocotools is missing."""
    of = source.objects
    per_image = np.diff(of.first)
    present = len(np.unique(of.labels))
    lines = [
        f"{len(of.ids):,} objects, {per_image.min():,}/{np.median(per_image):,g}/{per_image.max():,} an image, "
        f"{present:,} of {len(source.classes):,} categories present, {int(of.crowds.sum()):,} crowds",
        _size_line(of.areas[~of.crowds]),
    ]
    left_out = [f"{count:,} {reason}" for reason, count in source.dropped.items() if count]
    lines.append(f"objects left out: {', '.join(left_out) or 'none'}")
    counts = np.bincount(of.masks.forms, minlength=len(FORMS))
    forms = ", ".join(f"{count:,} {form}" for form, count in zip(FORMS, counts.tolist(), strict=True) if count)
    lines.append(f"masks: {forms}; {_mask_line(source, decode, problems)}")
    if (of.ids == 0).any():
        lines.append("note: an annotation has the id 0, which COCO's evaluation takes for no match; count them from 1")
    return [line if line.startswith("note: ") else f"{'':8} {line}" for line in lines]


def _size_line(areas: NDArray[np.float64]) -> str:
    if not len(areas):
        return "no object that is not a crowd"
    small, medium = SIZES.values()
    counts = np.array([(areas < small).sum(), ((small <= areas) & (areas < medium)).sum(), (areas >= medium).sum()])
    shares = ", ".join(
        f"{share:.1%} {what}" for what, share in zip([*SIZES, "large"], counts / len(areas), strict=True)
    )
    return f"areas: {shares} (under 32², under 96² pixels, others; without crowds)"


def _mask_line(source: Detections, decode: bool, problems: list[str]) -> str:
    try:
        found = source.check_annotations(decode)
    except DataError as error:
        problems.append(str(error))
        return "not as stated"
    except BackendError as error:
        if decode:
            raise
        return f"none decoded ({error})"
    which = "all decoded" if found.objects == len(source.objects.ids) else f"{found.objects:,} decoded, evenly spaced"
    empty = f", {found.empty:,} empty" if found.empty else ""
    against = f"median IoU {found.median_iou:.3f} with the boxes, areas stated {found.median_area:.2f} of the pixels"
    return f"{against}{empty} ({which})"
