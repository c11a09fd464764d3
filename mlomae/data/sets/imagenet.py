"""ImageNet-1K (ILSVRC 2012) in its usual folders: 1,281,167 images in train/<wnid>/ and 50,000 in val/<wnid>/.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015. The labels of its test
part are not public: ``val`` is evaluated on.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlomae.common.errors import DataError
from mlomae.data.formats.folder import EXTENSIONS, scan
from mlomae.data.paths import data_folder, first_names
from mlomae.data.published import PUBLISHED, Part, PublishedSource, check_split, part_folder
from mlomae.data.sources import register_source

REMEDY = "unpack the archives again (`mlomae data prepare imagenet ROOT` says how)"


def _class_names(folder: Path) -> list[str]:
    """Class folders, sorted. Raises DataError if they are not named by WordNet ids, or the images lie flat."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    odd = [name for name in names if not re.fullmatch(r"n\d{8}", name)]
    if odd:
        remedy = "name class folders by WordNet id (n01440764), or use type='imagefolder'"
        raise DataError(f"imagenet: {folder} has folders that are no classes ({first_names(odd)}); {remedy}")
    if not names and any(entry.name.lower().endswith(EXTENSIONS) for entry in os.scandir(folder)):
        remedy = f"move each image into its class, {folder}{os.sep}<wnid>{os.sep} (`mlomae data prepare imagenet ROOT`)"
        raise DataError(f"imagenet: the images of {folder} are not in class folders; {remedy}")
    return names


@register_source("imagenet")
class ImageNet(PublishedSource):
    """ImageNet-1K, decoded on each access; classes are the WordNet ids, sorted.

    Only the part that is asked for is counted, because listing the training images can take minutes; that no file
    name is in both parts is checked when ``train`` is opened.

    Args:
        root: the folder with train/ and val/, or the one that holds ILSVRC/Data/CLS-LOC.
        split: ``train`` or ``val``.
        subset: accept a consistent part of the set.

    Raises ConfigError for an unknown split, DataError for a layout that is not this one or parts that do not fit.
    """

    def __init__(self, root: str, split: str = "train", subset: bool = False) -> None:
        check_split("imagenet", split)
        base = data_folder(root, "imagenet", ["ILSVRC/Data/CLS-LOC"], ["train", "val"])
        folders = {part: part_folder("imagenet", base, part, REMEDY) for part in PUBLISHED["imagenet"].counts}
        if folders["train"] == folders["val"]:
            raise DataError(f"imagenet: train and val are one folder, {folders['val']}; {REMEDY}")
        train, val = (_class_names(folder) for folder in folders.values())
        odd = sorted(set(train) ^ set(val))
        if odd:
            raise DataError(f"imagenet at {base}: train/ and val/ differ in class {first_names(odd)}; {REMEDY}")
        names, files, labels = scan(folders[split])
        if split == "train":
            _check_names(base, files, folders["val"])
        part = Part(folders[split], files, labels)
        super().__init__("imagenet", split, [split], base, names, {split: part}, subset, REMEDY)


def _check_names(base: Path, training: list[str], val: Path) -> None:
    """File names of ImageNet are unique: one that is in both parts is one image."""
    evaluated = {os.path.basename(file) for file in scan(val)[1]}
    both = [file for file in training if os.path.basename(file) in evaluated]
    if both:
        raise DataError(f"imagenet at {base}: {first_names(both)} of train/ is in val/ too; {REMEDY}")
