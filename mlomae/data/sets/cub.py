"""CUB-200-2011: 200 species of birds, 5,994 training and 5,794 test images, one folder with lists in text files.

Source: Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001; data.caltech.edu/records/65de6-vp158.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import DataError
from mlomae.data.formats.lists import read_numbered
from mlomae.data.paths import first_names
from mlomae.data.published import Part, PublishedSource
from mlomae.data.registry import Download, Published, register_dataset

URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
REMEDY = "unpack CUB_200_2011.tgz again"


@register_dataset(
    "cub200",
    Published({"train": 5_994, "test": 5_794}, 200),
    Download("CUB_200_2011", {URL: "97eceeb196236b17998738112f37df78"}),
)
class Cub200(PublishedSource):
    """CUB-200-2011 as published.

    ``root`` is ``CUB_200_2011`` or the folder that holds it: images/, images.txt, image_class_labels.txt,
    train_test_split.txt, classes.txt and, if the boxes are wanted, bounding_boxes.txt. ``split`` is ``train`` or
    ``test``. Other arguments and errors as in PublishedSource.

    Attributes:
        boxes: (N, 4) float32, x and y of the upper left corner, width and height of the bird in pixels; None without
            bounding_boxes.txt.
    """

    remedy = REMEDY
    inner = ("CUB_200_2011",)
    markers = ("images.txt",)
    boxes: NDArray[np.float32] | None

    def read_lists(self, base: Path, split: str) -> tuple[list[str], dict[str, Part]]:
        images, names = (read_numbered(base / file, "cub200", REMEDY) for file in ("images.txt", "classes.txt"))
        class_of = _numbers(base / "image_class_labels.txt", images, {str(n) for n in names})
        in_train = _numbers(base / "train_test_split.txt", images, {"0", "1"})
        for image, file in images.items():
            name = names[class_of[image]]
            if file.rpartition("/")[0] != name:
                said = f"{base / 'image_class_labels.txt'} puts {file} into class '{name}', not its folder's"
                raise DataError(f"cub200: {said}; {REMEDY}")
        index = {number: i for i, number in enumerate(sorted(names))}
        chosen = {"train": [i for i in images if in_train[i]], "test": [i for i in images if not in_train[i]]}
        folder = (base / "images").resolve()
        parts = {
            part: Part(folder, [images[i] for i in ids], [index[class_of[i]] for i in ids])
            for part, ids in chosen.items()
        }
        self.boxes = _boxes(base / "bounding_boxes.txt", images, chosen[split])
        return [names[n] for n in sorted(names)], parts


def _column(path: Path, images: dict[int, str]) -> dict[int, str]:
    """A table with one row per image of ``images.txt``."""
    table = read_numbered(path, "cub200", REMEDY)
    odd = sorted(images.keys() ^ table.keys())
    if odd:
        raise DataError(f"cub200: {path} and images.txt differ in image {first_names(odd)}; {REMEDY}")
    return table


def _numbers(path: Path, images: dict[int, str], allowed: set[str]) -> dict[int, int]:
    table = _column(path, images)
    for image, text in table.items():
        if text not in allowed:
            raise DataError(f"cub200: {path} gives image {image} the invalid value '{text}'; {REMEDY}")
    return {image: int(text) for image, text in table.items()}


def _boxes(path: Path, images: dict[int, str], ids: list[int]) -> NDArray[np.float32] | None:
    if not path.is_file():
        return None
    table = _column(path, images)
    try:
        boxes = np.array([[float(value) for value in table[i].split()] for i in ids], dtype=np.float32)
    except ValueError:
        boxes = np.empty(0, dtype=np.float32)
    if boxes.shape != (len(ids), 4) or not np.isfinite(boxes).all():
        raise DataError(f"cub200: {path} does not give four numbers per image; {REMEDY}, or delete this file")
    return boxes
