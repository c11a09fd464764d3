"""Images with a class for every pixel, as semantic segmentation needs them, and a registry that builds such a set.

Layout: ``ROOT/images/SPLIT/NAME.jpg`` (or png) and ``ROOT/annotations/SPLIT/NAME.png``, with the value 0 where a pixel
is not labelled and 1 to C for the classes. What costs little is verified when a set is opened, before any training.

Shape suffixes: C classes, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.errors import DataError
from mlomae.common.registry import Registry
from mlomae.data.files import ImageFiles, in_threads
from mlomae.data.label_maps import IGNORE, MOST_CLASSES, Fault, header_fault, read_labels
from mlomae.data.paths import first_names, split_folder
from mlomae.data.published import PUBLISHED, check_counts, part_folder, subset_remark

EXTENSIONS = (".jpg", ".jpeg", ".png")
SCANNED = 100
"""Annotations decoded when a set is opened, evenly spaced."""


@dataclass(frozen=True)
class LabelCounts:
    """Pixels in ``annotations`` decoded annotations: (C,) int64 of each class, and how many are not labelled."""

    annotations: int
    pixels: NDArray[np.int64]
    ignored: int


class Scenes(ImageFiles):
    """Image files and their annotations, in the order of their names.

    Args:
        name, split: as in Images.
        base: resolved folder with images/ and annotations/.
        classes: names, in the order of the values 1 to C.
        subset: accept fewer images than were published under ``name``.

    Raises DataError, one line, if a folder is missing or empty; an image has no annotation or the other way round; the
    number of images is not the published one; an annotation is not a single-channel PNG of its image's size (all
    headers are read); or, in SCANNED of them, a value is above C or no pixel is labelled.
    """

    classes: tuple[str, ...]
    remedy = "every image images/SPLIT/NAME.jpg needs an annotation annotations/SPLIT/NAME.png, and the other way round"
    value_remedy = "0 means not labelled, 1 is the first class; correct the annotations or the list of classes"

    def __init__(self, name: str, split: str, base: Path, classes: Sequence[str], subset: bool = False) -> None:
        if not 1 <= len(classes) <= MOST_CLASSES:
            raise DataError(f"{name} at {base} has {len(classes)} classes; annotations can hold 1 to {MOST_CLASSES}")
        images, annotations = (
            split_folder(part_folder(name, base, kind, self.remedy), split, name) for kind in ("images", "annotations")
        )
        of_image, of_annotation = _by_stem(name, images, EXTENSIONS), _by_stem(name, annotations, (".png",))
        for ours, theirs, what in ((of_image, of_annotation, "images"), (of_annotation, of_image, "annotations")):
            alone = sorted(ours.keys() - theirs.keys())
            if alone:
                other = "annotation" if what == "images" else "image"
                found = f"{len(alone):,} of {len(ours):,} {split} {what} have no {other} ({first_names(alone)})"
                raise DataError(f"{name} at {base}: {found}; {self.remedy}")
        if name in PUBLISHED:
            check_counts(name, base, {split: len(of_image)}, len(classes), subset)
        stems = sorted(of_image)
        super().__init__(name, split, base, images, tuple(classes), [of_image[s] for s in stems], [str(images)])
        self.annotations = annotations
        self._annotation_files = np.array([os.fsencode(of_annotation[s]) for s in stems])  # an array: see ImageFiles
        self._check_headers()
        self.check_labels()

    def image_path(self, i: int) -> str:
        """Absolute path of image ``i``."""
        return self.path(i)

    def annotation_path(self, i: int) -> str:
        """Absolute path of the annotation of image ``i``."""
        return str(self.annotations / os.fsdecode(self._annotation_files[i]))

    def labels(self, i: int) -> Tensor:
        """(H, W) uint8, 0 to C - 1, or IGNORE where not labelled. Raises DataError for a value above C."""
        return read_labels(self.annotation_path(i), len(self.classes), self.value_remedy)

    def describe(self) -> str:
        return super().describe() + subset_remark(self.name, self.split, len(self))

    def check_labels(self, decode_all: bool = False) -> LabelCounts:
        """Decode the annotations, all or SCANNED of them, evenly spaced, and count their pixels.

        Raises DataError, naming the first, if one cannot be decoded or has a value above C, or if none has a label.
        """
        count = len(self) if decode_all else min(SCANNED, len(self))
        pixels = np.zeros(IGNORE + 1, dtype=np.int64)
        faults = []
        for found in in_threads(self._count_pixels, [i * len(self) // count for i in range(count)]):
            if isinstance(found, DataError):
                faults.append(found)
            else:
                pixels += found
        if faults:
            which = f"{len(faults):,} of {count:,} annotations scanned have a fault, the first:"
            raise DataError(f"{self.describe()}: {which} {faults[0]}")
        if not pixels[:IGNORE].any():
            raise DataError(f"{self.describe()}: no pixel of {count:,} annotations is labelled; {self.value_remedy}")
        return LabelCounts(count, pixels[: len(self.classes)], int(pixels[IGNORE]))

    def _count_pixels(self, i: int) -> NDArray[np.int64] | DataError:
        try:
            return np.bincount(self.labels(i).numpy().ravel(), minlength=IGNORE + 1)
        except DataError as error:
            return error

    def _check_headers(self) -> None:
        faults = [fault for fault in in_threads(self._header_fault, range(len(self))) if fault is not None]
        if faults:
            alike = [fault for fault in faults if fault.what == faults[0].what]
            found = f"{len(alike):,} of {len(self):,} {self.split} annotations {alike[0].what}"
            examples = first_names(fault.example for fault in alike)
            raise DataError(f"{self.name} at {self.root}: {found} ({examples}); {alike[0].remedy}")

    def _header_fault(self, i: int) -> Fault | None:
        path = self.annotation_path(i)
        return header_fault(path, os.path.basename(path), self.image_size(i))

    def _fingerprint_label(self, i: int) -> bytes:
        return b"%d " % os.path.getsize(self.annotation_path(i))


def _by_stem(name: str, folder: Path, extensions: tuple[str, ...]) -> dict[str, str]:
    """File names in ``folder`` by what comes before the extension. Raises DataError if there is none, or one twice."""
    found: dict[str, str] = {}
    for file in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(file)
        if extension.lower() not in extensions or file.startswith("."):
            continue
        if stem in found:
            raise DataError(f"{name}: {folder} has both {found[stem]} and {file}; keep one of them")
        found[stem] = file
    if not found:
        wanted = " or ".join(extensions)
        raise DataError(f"{name}: {folder} holds no {wanted} file; put them into it, not into folders below it")
    return found


_SCENES = Registry[Scenes]("scene source")
register_scenes = _SCENES.register


def list_scenes() -> list[str]:
    """The values ``type`` can take."""
    return _SCENES.names()


def build_scenes(cfg: dict[str, Any]) -> Scenes:
    """Build the set that ``cfg`` describes: ``type`` names it, every other key is an argument of its builder.

    Raises ConfigError for an unknown type, an unknown key or a missing key, and DataError if the data cannot be read.
    """
    return _SCENES.build(cfg.get("type"), {k: v for k, v in cfg.items() if k != "type"})
