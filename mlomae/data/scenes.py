"""Images with a class for every pixel, as semantic segmentation needs them.

Layout: ``ROOT/images/SPLIT/NAME.jpg`` (or png) and ``ROOT/annotations/SPLIT/NAME.png``, a PNG with one value per pixel:
0 where it has no label and 1 to C for the classes, as in the ADE20K scene parsing challenge (Zhou et al., CVPR 2017),
whose layout most data sets are distributed in. Cheap checks are made when a data set is opened, before any training.

Shape suffixes: C classes, H height, W width.
"""

import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.errors import DataError, counted, first_names
from mlomae.data.images import IGNORE, ImageFiles, digest_bytes, evenly_spaced
from mlomae.data.paths import inner_folder, left_out_phrase, list_images, split_folder, subfolders
from mlomae.data.reader import IMAGE_ENDINGS, decode_values, in_threads, read_bytes
from mlomae.data.registry import build_dataset, check_counts, subset_remark

SCANNED = 100
"""Annotations decoded when a data set is opened, evenly spaced."""
MOST_CLASSES = 255
"""As many as fit into one byte besides IGNORE."""

HEADER = 26
"""Bytes of a PNG file up to the kind of its pixels."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 4, 6  # colour types of the PNG header; the remaining one, 3, is a palette


@dataclass(frozen=True)
class LabelCounts:
    """Pixels in ``annotations`` decoded annotations: (C,) int64 of each class, and how many have no label."""

    annotations: int
    pixels: NDArray[np.int64]
    ignored: int


class Scenes(ImageFiles):
    """Image files and their annotations, in the order of their names; published ones have the published number.

    Args:
        split: as in Images.
        base: resolved folder with images/ and annotations/.
        classes: names, in the order of the values 1 to C.
        subset: accept fewer images than published.
        ignore: values that, like 0, stand for no label; by default 255 where there are fewer classes.

    Raises DataError, one line, if a folder is missing or empty; an image has no annotation or vice versa; the number of
    images is not the published one; an annotation is not a single-channel PNG of its image's size (all headers are
    read); or, in SCANNED of them, a value is above C or no pixel has a label.
    """

    provides = "a class for every pixel"
    fewest_classes = 2
    class_remedy = "annotate the background as a class too"
    layout = "images/training/*.jpg"
    classes: tuple[str, ...]
    remedy = "every image images/SPLIT/NAME.jpg needs an annotation annotations/SPLIT/NAME.png, and vice versa"
    value_remedy = "0 means no label, 1 is the first class; correct the annotations or the list of classes"

    def __init__(
        self,
        split: str,
        base: Path,
        classes: Sequence[str],
        subset: bool = False,
        ignore: int | Sequence[int] | None = None,
    ) -> None:
        name = self.name
        by_default = [255] if len(classes) < 255 else []
        self.ignore = by_default if ignore is None else [ignore] if isinstance(ignore, int) else list(ignore)
        self._guessed = ignore is None and bool(by_default)
        if not 1 <= len(classes) <= MOST_CLASSES:
            raise self.fault(f"{base} has {len(classes)} classes", f"annotations can hold 1 to {MOST_CLASSES}")
        images, annotations = (
            split_folder(inner_folder(base / kind, name, self.remedy), split, name)
            for kind in ("images", "annotations")
        )
        of_image, of_annotation = self._by_stem(images, IMAGE_ENDINGS), self._by_stem(annotations, (".png",))
        for ours, theirs, what, other in (
            (of_image, of_annotation, "images", "annotation"),
            (of_annotation, of_image, "annotations", "image"),
        ):
            if alone := sorted(ours.keys() - theirs.keys()):
                said = f"{len(alone):,} of {len(ours):,} {split} {what} have no {other} ({first_names(alone)})"
                raise self.fault(f"in {base} {said}")
        check_counts(name, base, {split: len(of_image)}, len(classes), subset)
        stems = sorted(of_image)
        super().__init__(name, split, base, images, tuple(classes), [of_image[s] for s in stems])
        self.annotations = annotations
        self._annotation_files = np.array([os.fsencode(of_annotation[s]) for s in stems])  # an array: see ImageFiles
        self._check_headers()
        self.check_labels()

    @classmethod
    def list_splits(cls, base: Path) -> list[str]:
        """The folders in ``base/images``."""
        return subfolders(base / "images") if (base / "images").is_dir() else []

    def annotation_path(self, i: int) -> str:
        """Absolute path of the annotation of image ``i``."""
        return str(self.annotations / os.fsdecode(self._annotation_files[i]))

    def labels(self, i: int) -> Tensor:
        """(H, W) uint8, 0 to C - 1, or IGNORE for no label. Raises DataError for a value above C, or a damaged file."""
        return read_labels(self.annotation_path(i), len(self.classes), self.value_remedy, self.ignore)

    def describe(self) -> str:
        return super().describe() + subset_remark(self.name, self.split, len(self))

    def check_labels(self, decode_all: bool = False) -> LabelCounts:
        """Decode the annotations, all or SCANNED of them, evenly spaced, and count their pixels.

        Raises DataError, naming the first, if one cannot be decoded or has a value above C, or if none has a label.
        """

        def count_pixels(i: int) -> NDArray[np.int64] | DataError:
            try:
                return np.bincount(self.labels(i).numpy().ravel(), minlength=IGNORE + 1)
            except DataError as error:
                return error

        chosen = evenly_spaced(len(self), None if decode_all else SCANNED)
        found = list(in_threads(count_pixels, chosen))
        if faults := [error for error in found if isinstance(error, DataError)]:
            which = f"faults in {len(faults):,} of {counted(len(found), 'annotation')} scanned, the first:"
            raise DataError(f"{self.describe()}: {which} {faults[0]}")
        pixels = np.sum([counts for counts in found if not isinstance(counts, DataError)], axis=0)
        last = len(self.classes)
        if (
            self._guessed
            and not pixels[last - 1]
            and any((decode_values(self.annotation_path(i)) == 255).any() for i in chosen)
        ):
            what = f"annotations have the value 255 but never {last}, that of '{self.classes[-1]}'"
            remedy = "write 1, 2, ... for the lines of the list of classes, 0 for no label (a black and white mask has "
            remedy += "two classes: 1 for black, 2 for white)"
            raise DataError(f"{self.describe()}: {what}; {remedy}, or set ignore=255 if 255 stands for no label")
        if not pixels[:IGNORE].any():
            what = f"no pixel of {counted(len(found), 'annotation')} has a label"
            raise DataError(f"{self.describe()}: {what}; {self.value_remedy}")
        return LabelCounts(len(found), pixels[: len(self.classes)], int(pixels[IGNORE]))

    def _by_stem(self, folder: Path, endings: tuple[str, ...]) -> dict[str, str]:
        """Names of the image files in ``folder`` by stem. Raises DataError if there is none, or two of one stem."""
        found: dict[str, str] = {}
        files, left_out = list_images(folder, endings)
        for file in files:
            other = found.setdefault(os.path.splitext(file)[0], file)
            if other != file:
                raise self.fault(f"{folder} has both {other} and {file}", "keep one of them")
        if not found:
            wanted = "image" if endings == IMAGE_ENDINGS else " or ".join(endings) + " file"
            have = f" ({left_out_phrase(left_out)})" if left_out else ""
            raise self.fault(f"{folder} holds no {wanted}{have}", "put them into it, not into folders below it")
        self.left_out = Counter(self.left_out) + left_out
        return found

    def _check_headers(self) -> None:
        paths = [self.annotation_path(i) for i in range(len(self))]
        headers = list(in_threads(lambda i: read_bytes(paths[i], HEADER), range(len(self))))
        self.stated_sizes = np.array([png_size(header) for header in headers], dtype=np.int64)
        sizes = in_threads(self.image_size, range(len(self)))
        found = (header_fault(*each) for each in zip(headers, sizes, map(os.path.basename, paths), strict=True))
        faults = [fault for fault in found if fault is not None]
        if first := [fault for fault in faults if fault.what == faults[0].what]:
            said = f"{len(first):,} of {len(self):,} {self.split} annotations {first[0].what}"
            examples = first_names(fault.example for fault in first)
            raise self.fault(f"in {self.root} {said} ({examples})", first[0].remedy)

    def label_digest(self, i: int) -> bytes:
        return digest_bytes(read_bytes(self.annotation_path(i)))

    def _fingerprint_label(self, i: int) -> bytes:
        return b"%d " % os.path.getsize(self.annotation_path(i))


def png_size(header: bytes) -> tuple[int, int]:
    """(H, W) by the first HEADER bytes of a PNG file; zeros for another file."""
    is_png = header.startswith(_SIGNATURE) and len(header) == HEADER
    width, height = struct.unpack(">II", header[16:24]) if is_png else (0, 0)
    return height, width


class Fault(NamedTuple):
    """What is wrong with annotations, the remedy, and the name of one that has the fault."""

    what: str
    remedy: str
    example: str


def header_fault(header: bytes, image_size: tuple[int, int], name: str) -> Fault | None:
    """What is wrong with an annotation by its first HEADER bytes, or None; ``name`` is that of its file.

    ``image_size`` is the (H, W) of its image in pixels. Pillow is not used, because it does not report the bits per
    pixel: it scales grey values of 1, 2 or 4 bits, so that class 1 would be read as 255, 85 or 17.
    """
    if len(header) < HEADER or not header.startswith(_SIGNATURE):
        return Fault("are not PNG files", "save annotations as single-channel PNG", name)
    (height, width), (bits, colour) = png_size(header), header[24:HEADER]
    if colour in (_RGB, _RGB_ALPHA):
        numbers = "convert the colours to class numbers (0 = no label, then 1, 2, ...)"
        return Fault("are RGB pictures", f"{numbers} and save them as single-channel PNG", name)
    if colour == _GREY_ALPHA:
        return Fault("have an alpha channel", "save them as single-channel PNG", name)
    if colour == _GREY and bits < 8:
        return Fault(f"are grey with {bits} bits per pixel, which readers scale", "save them with 8 bits", name)
    if (height, width) != image_size:
        sizes = f"{name}: {height}x{width} against {image_size[0]}x{image_size[1]} pixels"
        return Fault(
            "differ in size from their images", "resize annotations like their images, to the nearest pixel", sizes
        )
    return None


def read_labels(path: str, classes: int, remedy: str, ignore: Sequence[int] = ()) -> Tensor:
    """The labels in an annotation: (H, W) uint8, the file's value minus one, and IGNORE where that is 0.

    Values in ``ignore`` are read as 0. Raises DataError if the file cannot be decoded, or if it has another value above
    ``classes``, with ``remedy``.
    """
    values_HW = decode_values(path)
    if ignore:
        values_HW = np.where(np.isin(values_HW, ignore), 0, values_HW)
    largest = int(values_HW.max())
    if largest > classes:
        raise DataError(f"{path} has the value {largest}, above its {classes} classes; {remedy}")
    return torch.from_numpy(values_HW.astype(np.uint8) - np.uint8(1))  # 0 wraps around to 255, which is IGNORE


build_scenes = partial(build_dataset, kind=Scenes)
