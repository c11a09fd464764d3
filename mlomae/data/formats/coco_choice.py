"""Some of a set's classes, as COCO's tools choose them by ``catIds``: the other objects are not looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlomae.common.errors import ConfigError, DataError
from mlomae.data.formats.coco_file import CocoFile, Objects
from mlomae.data.formats.coco_masks import Masks


def choose_classes(found: CocoFile, classes: Sequence[str], where: str) -> CocoFile:
    """The file with the objects of ``classes`` alone; all images stay, categories are ascending by id.

    Raises ConfigError for a choice that is empty, repeats a class, or names one that the file does not have, DataError
    if no object is left.
    """
    names = list(found.categories.values())
    if isinstance(classes, str) or not classes or len(set(classes)) < len(classes):
        raise ConfigError(f"{where}: `classes` must be a list of different class names; got {classes!r}")
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise ConfigError(f"{where} has no class {unknown[0]!r}; choose of {', '.join(names)}")
    chosen = [at for at, name in enumerate(names) if name in classes]
    of = found.objects
    kept = np.flatnonzero(np.isin(of.labels, chosen))
    if not len(kept):
        raise DataError(f"{where} has no object of {', '.join(classes)}; choose other classes")
    image = np.searchsorted(of.first, kept, side="right") - 1
    sizes = found.sizes[image].tolist()
    objects = Objects(
        ids=of.ids[kept],
        labels=np.searchsorted(chosen, of.labels[kept]),
        boxes=of.boxes[kept],
        areas=of.areas[kept],
        crowds=of.crowds[kept],
        first=np.searchsorted(image, np.arange(len(found.files) + 1)),
        masks=Masks(of.masks.get(n, *size) for n, size in zip(kept.tolist(), sizes, strict=True)),
    )
    categories = {id_: name for id_, name in found.categories.items() if name in classes}
    return CocoFile(found.image_ids, found.files, found.sizes, categories, objects, found.dropped)
