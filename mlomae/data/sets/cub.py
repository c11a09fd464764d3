"""CUB-200-2011: 200 species of birds, 5,994 training and 5,794 test images, one folder with lists in text files.

Source: Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001; data.caltech.edu/records/65de6-vp158.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import DataError
from mlomae.data.paths import data_folder, existing_file, first_names
from mlomae.data.published import Part, PublishedSource, check_split
from mlomae.data.sources import register_source

REMEDY = "unpack CUB_200_2011.tgz again"


def read_table(path: Path) -> dict[int, str]:
    """Lines ``<number> <rest>`` as a dict. Raises DataError naming the line that is not one, or repeats a number."""
    existing_file(path, "cub200", REMEDY)
    table: dict[int, str] = {}
    for line_number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        if not line.strip():
            continue
        number, _, rest = line.strip().partition(" ")
        if not number.isdecimal() or not rest.strip() or int(number) in table:
            raise DataError(f"cub200: {path}, line {line_number}: expected a new number and a value; {REMEDY}")
        table[int(number)] = rest.strip()
    return table


def _column(base: Path, file: str, images: dict[int, str]) -> dict[int, str]:
    """A table with one row an image of ``images.txt``."""
    table = read_table(base / file)
    odd = sorted(images.keys() ^ table.keys())
    if odd:
        raise DataError(f"cub200: {base / file} and images.txt differ in image {first_names(odd)}; {REMEDY}")
    return table


def _numbers(path: Path, table: dict[int, str], allowed: set[str]) -> dict[int, int]:
    for image, text in table.items():
        if text not in allowed:
            raise DataError(f"cub200: {path} gives image {image} the value '{text}', which is not one; {REMEDY}")
    return {image: int(text) for image, text in table.items()}


@register_source("cub200")
class Cub200(PublishedSource):
    """CUB-200-2011 as published, decoded on each access.

    Args:
        root: ``CUB_200_2011`` or the folder that holds it: images/, images.txt, image_class_labels.txt,
            train_test_split.txt, classes.txt and, if the boxes are wanted, bounding_boxes.txt.
        split: ``train`` or ``test``.
        subset: accept a consistent part of the set.

    Attributes:
        boxes: (N, 4) float32, x and y of the upper left corner, width and height of the bird in pixels; None without
            bounding_boxes.txt.

    Raises ConfigError for an unknown split, DataError for lists that are missing or contradict each other, besides
    what PublishedSource raises.
    """

    def __init__(self, root: str, split: str = "train", subset: bool = False) -> None:
        check_split("cub200", split)
        base = data_folder(root, "cub200", ["CUB_200_2011"], ["images.txt"])
        images = read_table(base / "images.txt")
        names = read_table(base / "classes.txt")
        class_file, split_file = base / "image_class_labels.txt", base / "train_test_split.txt"
        class_of = _numbers(class_file, _column(base, class_file.name, images), {str(n) for n in names})
        in_train = _numbers(split_file, _column(base, split_file.name, images), {"0", "1"})
        for image, file in images.items():
            name = names[class_of[image]]
            if file.rpartition("/")[0] != name:
                raise DataError(f"cub200: {class_file} puts {file} into class '{name}', not its folder's; {REMEDY}")
        index = {number: i for i, number in enumerate(sorted(names))}
        chosen = {"train": [i for i in images if in_train[i]], "test": [i for i in images if not in_train[i]]}
        folder = (base / "images").resolve()
        parts = {
            part: Part(folder, [images[i] for i in ids], [index[class_of[i]] for i in ids])
            for part, ids in chosen.items()
        }
        super().__init__("cub200", split, [split], base, [names[n] for n in sorted(names)], parts, subset, REMEDY)
        self.boxes = self._read_boxes(base, images, chosen[split])

    @staticmethod
    def _read_boxes(base: Path, images: dict[int, str], ids: list[int]) -> NDArray[np.float32] | None:
        path = base / "bounding_boxes.txt"
        if not path.is_file():
            return None
        table = _column(base, path.name, images)
        try:
            boxes = np.array([[float(value) for value in table[i].split()] for i in ids], dtype=np.float32)
        except ValueError:
            boxes = np.empty(0, dtype=np.float32)
        if boxes.shape != (len(ids), 4) or not np.isfinite(boxes).all():
            raise DataError(f"cub200: {path} does not give four numbers an image; {REMEDY}, or delete this file")
        return boxes
