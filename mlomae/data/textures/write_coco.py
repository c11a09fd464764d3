"""Writes the embedded images as a COCO data set, so that detection reads them through the loaders of real data.

    root/<split>/000000.png ...
    root/annotations/instances_<split>.json

Masks are uncompressed RLE (the lengths of alternating runs of 0 and 1, column by column, a run of 0 first), not
polygons: the instances are known to the pixel, and so they stay. Shape suffixes: H height, W width, n instances.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.data.textures.source import Textures
from mlomae.data.textures.write_scenes import common_classes, new_folder


def write_coco(root: str | os.PathLike[str], splits: Mapping[str, Textures]) -> Path:
    """Write each source of ``splits`` under its name; the same sources give the same bytes.

    Image i is ``<split>/<i, six digits>.png`` with id i + 1; ids of annotations and categories start from 1 as well,
    category c + 1 being class c (COCO's evaluation takes an annotation with id 0 for no match).

    Args:
        root: a folder that does not exist yet. It is written under a temporary name beside it and renamed.
        splits: name of the split, e.g. ``train``, to its images; all with the same classes.

    Returns:
        ``root``, resolved.

    Raises ConfigError if ``root`` exists, there is no split, a name is not that of a folder or the classes differ,
    DataError if ``root`` cannot be written; what was written so far is removed.
    """
    common_classes(splits)
    if "annotations" in splits:
        raise ConfigError("'annotations' cannot be the name of a split: that folder is taken; try train")
    with new_folder(root) as folder:
        (folder / "annotations").mkdir()
        for name, source in splits.items():
            (folder / name).mkdir()
            for i in range(len(source)):
                pixels_HWC = source.image(i).permute(1, 2, 0).contiguous().numpy()
                Image.fromarray(pixels_HWC).save(folder / name / _file_name(i))
            text = json.dumps(coco_annotations(source), separators=(",", ":"))
            (folder / "annotations" / f"instances_{name}.json").write_text(text + "\n", encoding="utf-8")
    return Path(root).expanduser().resolve()


def coco_annotations(source: Textures) -> dict[str, Any]:
    """The content of ``instances_<split>.json``: boxes are x, y, width, height in pixels, areas are pixels."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(len(source)):
        height, width = source.image_size(i)
        images.append({"id": i + 1, "file_name": _file_name(i), "height": height, "width": width})
        shown = source.annotation(i)
        for mask_HW, label in zip(shown.masks, shown.labels.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": label + 1,
                    "bbox": _box(mask_HW),
                    "area": int(mask_HW.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": run_lengths(mask_HW)},
                }
            )
    categories = [{"id": c + 1, "name": name, "supercategory": "texture"} for c, name in enumerate(source.classes)]
    info = {"description": source.describe(), "version": "1.0"}
    return {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def run_lengths(mask_HW: Tensor) -> list[int]:
    """Uncompressed RLE of a bool mask: lengths of alternating runs, column by column, the first of False (maybe 0)."""
    pixels = mask_HW.T.flatten().numpy().astype(np.int8)
    starts = np.flatnonzero(np.diff(pixels, prepend=0))
    counts: list[int] = np.diff(starts, prepend=0, append=len(pixels)).tolist()
    return counts


def _box(mask_HW: Tensor) -> list[int]:
    """The smallest x, y, width, height around the pixels."""
    rows, columns = (mask_HW.any(dim=dim).nonzero().flatten().tolist() for dim in (1, 0))
    return [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]


def _file_name(i: int) -> str:
    return f"{i:06d}.png"
