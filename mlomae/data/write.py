"""Writes images that are drawn or put together, with masks of their objects, in the layouts of real data sets, so that
the real loaders run on them.

Shape suffixes: H height, W width.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.ops import masks_to_boxes

from mlomae.common.atomic import new_folder
from mlomae.common.errors import ConfigError

FILE = "{:06d}.png"


@runtime_checkable
class Drawn(Protocol):
    """What is written: labelled images whose objects are known to the pixel, `Textures` or `OnScenes`."""

    name: str
    classes: Sequence[str]

    def __len__(self) -> int: ...
    def image(self, i: int) -> Tensor: ...
    def image_size(self, i: int) -> tuple[int, int]: ...
    def describe(self) -> str: ...

    def pixel_labels(self, i: int) -> Tensor:
        """(H, W) uint8: 0 on the background, class + 1 on objects."""
        ...

    def instances(self, i: int) -> tuple[Tensor, Tensor]:
        """Masks (n, H, W) bool and classes (n,) int64, from 0, of the objects of image ``i``."""
        ...


def write_scenes(root: str | os.PathLike[str], splits: Mapping[str, Drawn]) -> Path:
    """Write each data set of ``splits`` under its name as a folder of scenes, to be read as ``scene_folder``.

    Value 1 of the annotations is the background, which is a class too, and value k + 2 class k.
    The same arguments give the same bytes.

    Args:
        root: a folder that does not exist yet. It is written under a temporary name next to it and renamed.
        splits: images by name of the split, e.g. ``training``; all with the same classes.

    Returns:
        ``root``, resolved.

    Raises ConfigError if ``root`` exists, there is no split, a name cannot be that of a folder or the classes differ,
    DataError if ``root`` cannot be written; then nothing is left of it.
    """
    classes = ["background", *_common_classes(splits)]
    with new_folder(root) as folder:
        (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        for split, drawn in splits.items():
            images, annotations = folder / "images" / split, folder / "annotations" / split
            _write_images(images, drawn)
            annotations.mkdir(parents=True)
            for i in range(len(drawn)):
                Image.fromarray((drawn.pixel_labels(i) + 1).numpy()).save(annotations / FILE.format(i))
    return Path(root).expanduser().resolve()


def write_coco(root: str | os.PathLike[str], splits: Mapping[str, Drawn]) -> Path:
    """Write each data set of ``splits`` under its name in COCO's format, to be read as ``coco_folder``.

        root/<split>/000000.png ...
        root/annotations/instances_<split>.json

    Image i has id i + 1; ids of annotations and categories start from 1 as well, category c + 1 being class c (COCO's
    evaluation treats an annotation with id 0 as no match). Masks are uncompressed run lengths, which are exact, where
    polygons would not be. Arguments, result and errors as in `write_scenes`.
    """
    _common_classes(splits)
    if "annotations" in splits:
        raise ConfigError(
            "'annotations' cannot be the name of a split: that folder holds the annotation files; try train"
        )
    with new_folder(root) as folder:
        (folder / "annotations").mkdir()
        for split, drawn in splits.items():
            _write_images(folder / split, drawn)
            text = json.dumps(_coco_annotations(drawn), separators=(",", ":"))
            (folder / "annotations" / f"instances_{split}.json").write_text(text + "\n", encoding="utf-8")
    return Path(root).expanduser().resolve()


def _coco_annotations(drawn: Drawn) -> dict[str, Any]:
    """The content of ``instances_<split>.json``: boxes are x, y, width, height in pixels, areas are pixels."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(len(drawn)):
        height, width = drawn.image_size(i)
        images.append({"id": i + 1, "file_name": FILE.format(i), "height": height, "width": width})
        for mask_HW, label in zip(*drawn.instances(i), strict=True):
            left, top, right, bottom = masks_to_boxes(mask_HW[None])[0].int().tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": int(label) + 1,
                    "bbox": [left, top, right - left + 1, bottom - top + 1],
                    "area": int(mask_HW.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": run_lengths(mask_HW)},
                }
            )
    categories = [{"id": c + 1, "name": name, "supercategory": drawn.name} for c, name in enumerate(drawn.classes)]
    info = {"description": drawn.describe(), "version": "1.0"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def run_lengths(mask_HW: Tensor) -> list[int]:
    """Uncompressed RLE of a bool mask: lengths of alternating runs, column by column, the first of False (maybe 0)."""
    pixels = mask_HW.T.flatten().numpy().astype(np.int8)
    starts = np.flatnonzero(np.diff(pixels, prepend=0))
    return np.diff(starts, prepend=0, append=len(pixels)).tolist()


def _write_images(folder: Path, drawn: Drawn) -> None:
    folder.mkdir(parents=True)
    for i in range(len(drawn)):
        Image.fromarray(drawn.image(i).permute(1, 2, 0).contiguous().numpy()).save(folder / FILE.format(i))


def _common_classes(splits: Mapping[str, Drawn]) -> Sequence[str]:
    """The classes of all ``splits``. Raises ConfigError if they differ, if there is no split, or for a bad name."""
    if not splits:
        raise ConfigError("no split to write; give at least one, e.g. training")
    for name in splits:
        if not name or name.startswith(".") or name != Path(name).name:
            raise ConfigError(f"'{name}' cannot be the name of a split, which is a folder; try training")
    (first, reference), *others = splits.items()
    for name, drawn in others:
        if list(drawn.classes) != list(reference.classes):
            counts = f"{len(drawn.classes)} against {len(reference.classes)} classes"
            raise ConfigError(f"images of {name} and {first} differ in classes ({counts}); give both the same")
    return reference.classes
