"""What a folder of a user's images holds: class folders, folders of splits, or a heap without labels, and how configs
describe it. Only names and the headers of a sample are read."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlomae.common.errors import DataError, counted, first_names
from mlomae.data.images import evenly_spaced
from mlomae.data.paths import folder_title, list_images, scan_classes, subfolders
from mlomae.data.reader import IMAGE_ENDINGS, header_size, in_threads

SAMPLE = 200  # images whose size is read
LABEL_MAPS = ("annotations", "annotation", "labels", "masks")  # folders that may lie beside "images"
TRAINING = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation")
"""Names of folders of a split, in any case; of several held-out ones the first in this order is evaluated on."""


@dataclass(frozen=True)
class Found:
    """What is in a folder.

    Attributes:
        root: the folder, resolved; a folder that holds but one other folder with images stands for that one.
        kind: "classes", folders of one class each; "splits", such as train and val, each with class folders or with
            images; "heap", images without labels.
        train, held_out: how the section ``data`` of a config describes the images to train on, and those to evaluate
            on, which are others: of another split, or a fifth of each class. ``held_out`` is None without labels.
        images: number of images by split, "train" and "held_out"; without splits of "all".
        classes: names of the classes, in order; empty without labels.
        sizes: (height, width) in pixels of a sample of the training images, turned as EXIF says.
        left_out: how many other files there are, by kind.
    """

    root: Path
    kind: Literal["classes", "splits", "heap"]
    train: dict[str, Any]
    held_out: dict[str, Any] | None
    images: dict[str, int]
    classes: list[str]
    sizes: list[tuple[int, int]]
    left_out: Counter[str]

    @property
    def title(self) -> str:
        """What the folder is called in headings."""
        return folder_title(self.root)

    @property
    def total(self) -> int:
        return sum(self.images.values())

    @property
    def side(self) -> int:
        """Median of the shorter sides, in pixels."""
        return int(np.median([min(size) for size in self.sizes]))

    def describe(self) -> str:
        """E.g. ``36 images in 3 class folders (cat, dog, tree), 120 to 640 pixels``."""
        parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.images.items()]
        said = f"{' + '.join(parts) if len(parts) > 1 else f'{self.total:,}'} image{'s' * (self.total != 1)}"
        if self.classes:
            said += f" in {counted(len(self.classes), 'class folder')} ({first_names(self.classes)})"
        else:
            said += " without labels"
        sides = [side for size in self.sizes for side in size]
        low, high = min(sides), max(sides)
        return f"{said}, {low}{f' to {high}' if high > low else ''} pixels a side"


def look_into(folder: str | os.PathLike[str], labels: bool = True) -> Found:
    """What ``folder`` holds. Without ``labels`` it is taken for a heap: all images in it and in the folders below.

    Raises DataError, one line with a remedy, for a folder that does not exist, holds no image that can be read, images
    beside class folders, or an empty class folder.
    """
    place = Path(folder).expanduser()
    if place.is_file():
        raise DataError(f"images: {place} is a file; give its folder, {place.absolute().parent}")
    if not place.exists():
        raise DataError(f"images: {place} does not exist; give a folder of images")
    base = place.resolve()
    if not labels:
        return _heap(base, below=True)
    here = list_images(base)
    inner = [name for name in subfolders(base) if list_images(base / name, below=True).files]
    if here.files and inner:
        raise DataError(
            f"images: {base} has {counted(len(here.files), 'image')} beside the folders {first_names(inner)}, and it "
            "is not clear of which class they are; move them into a folder, or take all without labels (--no-labels)"
        )
    if not inner:
        return _heap(base)
    lower = {name.lower() for name in inner}
    if "images" in lower and lower & set(LABEL_MAPS):
        raise DataError(
            f"images: {base} has images beside labels of their pixels ({first_names(inner)}); to pretrain on the "
            f"images, give {base / next(name for name in inner if name.lower() == 'images')}"
        )
    train, held_out = _splits(inner)
    flat = all(list_images(base / name).files for name in inner)  # folders of images themselves
    if train and (held_out or not flat):
        return _split(base, train, held_out)
    if len(inner) == 1:
        return look_into(base / inner[0])
    classes, listed = scan_classes(base)
    source = {"type": "imagefolder", "root": str(base), "split": "."}
    parts = {**source, "part": "train"}, {**source, "part": "held_out"}
    sizes = _sizes(base, list(listed.files))
    return Found(base, "classes", *parts, {"all": len(listed.files)}, classes, sizes, Counter(listed.left_out))


def _splits(inner: list[str]) -> tuple[str | None, str | None]:
    """The folders of training and of held-out images, by their names."""
    lower = {name.lower(): name for name in inner}
    pick = lambda names: next((lower[name] for name in names if name in lower), None)  # noqa: E731
    return pick(TRAINING), pick(HELD_OUT)


def _split(base: Path, train: str, held_out: str | None) -> Found:
    """A folder of splits; without a held-out one its training images give it up."""
    if not held_out:
        return look_into(base / train)
    inside = look_into(base / train)
    if inside.kind != "classes":
        return inside
    classes, listed = scan_classes(base / held_out)
    if classes != inside.classes:
        odd = sorted(set(classes) ^ set(inside.classes))
        raise DataError(
            f"images: {base / train} and {base / held_out} have different class folders ({first_names(odd)}); give "
            f"both the same, or pretrain on {base / train} alone"
        )
    source = {"type": "imagefolder", "root": str(base)}
    sources = {**source, "split": train}, {**source, "split": held_out}
    count = {"train": inside.total, "held_out": len(listed.files)}
    return Found(base, "splits", *sources, count, classes, inside.sizes, inside.left_out)


def _heap(base: Path, below: bool = False) -> Found:
    files, left_out = list_images(base, below=below)
    if not files:
        raise DataError(f"images: {base} holds no image ({', '.join(IMAGE_ENDINGS)}); give a folder that does")
    source = {"type": "pictures", "root": str(base), **({"below": True} if below else {})}
    return Found(base, "heap", source, None, {"all": len(files)}, [], _sizes(base, files), left_out)


def _sizes(base: Path, files: list[str]) -> list[tuple[int, int]]:
    chosen = evenly_spaced(len(files), SAMPLE)
    found = list(in_threads(lambda i: header_size(str(base / files[i])), chosen))
    sizes = [size for size in found if size is not None]
    if not sizes:
        none = f"images: none of {counted(len(found), 'image')} of {base} can be read ({first_names(files)})"
        raise DataError(f"{none}; replace them")
    return sizes
