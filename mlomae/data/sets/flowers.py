"""Oxford Flowers-102: 1,020 training, 1,020 validation and 6,149 test images of 102 flowers.

Source: Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008.
Accuracies are usually reported after training on train and val together.
"""

from __future__ import annotations

import numpy as np

from mlomae.common.errors import DataError
from mlomae.data.formats.matfiles import integers, read_mat
from mlomae.data.paths import data_folder
from mlomae.data.published import Part, PublishedSource, check_split
from mlomae.data.sources import register_source

REMEDY = "unpack 102flowers.tgz and fetch imagelabels.mat and setid.mat again"
LISTS = {"train": "trnid", "val": "valid", "test": "tstid"}
SPLITS = {"train": ["train"], "val": ["val"], "trainval": ["train", "val"], "test": ["test"]}


def _class_names(count: int) -> list[str]:
    """The names torchvision lists, in label order; numbers, where its version has none or they do not fit."""
    from torchvision.datasets import Flowers102 as Reference

    names = getattr(Reference, "classes", None)
    if isinstance(names, list) and len(names) >= count:
        return [str(name) for name in names[:count]]
    return [f"flower_{i + 1:03d}" for i in range(count)]


@register_source("flowers102")
class Flowers102(PublishedSource):
    """Oxford Flowers-102 as published, decoded on each access.

    Args:
        root: the folder with jpg/, imagelabels.mat and setid.mat, or one that holds it under torchvision's name,
            ``flowers-102``.
        split: ``train``, ``val``, ``trainval`` (the two together) or ``test``.
        subset: accept a consistent part of the set.

    Raises ConfigError for an unknown split, DataError for files that are missing or contradict each other.
    """

    def __init__(self, root: str, split: str = "train", subset: bool = False) -> None:
        check_split("flowers102", split, ["trainval"])
        base = data_folder(root, "flowers102", ["flowers-102"], ["imagelabels.mat", "setid.mat", "jpg"])
        path, sets = base / "imagelabels.mat", base / "setid.mat"
        labels = integers(read_mat(path, "flowers102", "labels", REMEDY), path, "flowers102", REMEDY)
        if labels.min() < 1:
            raise DataError(f"flowers102: {path} has labels below 1; {REMEDY}")
        parts = {}
        for part, variable in LISTS.items():
            ids = integers(read_mat(sets, "flowers102", variable, REMEDY), sets, "flowers102", REMEDY)
            if len(ids) and not (ids.min() >= 1 and ids.max() <= len(labels)):
                raise DataError(f"flowers102: {sets} names images outside 1 to {len(labels)}, the labelled; {REMEDY}")
            files = [f"image_{i:05d}.jpg" for i in ids]
            parts[part] = Part((base / "jpg").resolve(), files, labels[ids - 1] - 1)
        names = _class_names(int(np.max(labels)))
        super().__init__("flowers102", split, SPLITS[split], base, names, parts, subset, REMEDY)
