"""Tiny-ImageNet as published: ``train/<wnid>/images/*.JPEG``, and ``val/images`` with labels in a text file.

The published test part has no labels; ``val`` is the set to evaluate on. Classes are those of ``wnids.txt``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlomae.common.errors import ConfigError, DataError
from mlomae.data.formats.folder import decode_all, scan
from mlomae.data.memory import MemorySource
from mlomae.data.paths import existing_folder
from mlomae.data.sources import register_source

SPLITS = ("train", "val")


def _classes(root: Path) -> list[str]:
    path = root / "wnids.txt"
    if not path.is_file():
        raise DataError(f"tiny_imagenet: {path} is missing; give the folder tiny-imagenet-200 as `root`")
    return sorted(path.read_text().split())


def _annotated(root: Path, classes: list[str]) -> tuple[list[str], list[int]]:
    """Files of ``val/images`` and their labels, by ``val/val_annotations.txt``."""
    table = root / "val" / "val_annotations.txt"
    if not table.is_file():
        raise DataError(f"tiny_imagenet: {table} is missing; without it the validation images have no labels")
    index = {name: i for i, name in enumerate(classes)}
    files, labels = [], []
    for number, line in enumerate(table.read_text().splitlines(), 1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in index:
            raise DataError(
                f"tiny_imagenet: {table}, line {number}: class '{wnid}' is not in wnids.txt; fetch it again"
            )
        if not (root / "val" / "images" / file).is_file():
            raise DataError(f"tiny_imagenet: {table} names {file}, which val/images lacks; unpack the data set again")
        files.append(file)
        labels.append(index[wnid])
    if not files:
        raise DataError(f"tiny_imagenet: {table} is empty; unpack the data set again")
    return files, labels


@register_source("tiny_imagenet")
class TinyImageNet(MemorySource):
    """64-pixel images of up to 200 classes, decoded into memory; subsets of the published files are accepted.

    Raises ConfigError for a split that has no labels, DataError for missing or contradictory files.
    """

    def __init__(self, root: str, split: str = "train") -> None:
        base = existing_folder(root, "tiny_imagenet")
        if split not in SPLITS:
            raise ConfigError(f"tiny_imagenet: split '{split}' is unknown or unlabelled; choose one of train, val")
        classes = _classes(base)
        if split == "train":
            folder = existing_folder(base / "train", "tiny_imagenet")
            found, files, labels = scan(folder)
            if found != classes:
                odd = sorted(set(found) ^ set(classes))
                raise DataError(f"tiny_imagenet: train/ and wnids.txt differ in class '{odd[0]}'; unpack again")
        else:
            folder = existing_folder(base / "val" / "images", "tiny_imagenet")
            files, numbers = _annotated(base, classes)
            labels = np.asarray(numbers, dtype=np.int64)
        images = decode_all(folder, files)
        super().__init__("tiny_imagenet", split, str(base), classes, images, labels, [str(folder)])
