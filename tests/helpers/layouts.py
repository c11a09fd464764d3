"""Tiny data sets in the layouts of the published ones: two classes, three training and two evaluation images each."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from mlomae.data import Published

SEEDS = itertools.count()
TRAIN, TEST = 3, 2  # images per class


def write_image(path: Path, size: tuple[int, int] = (16, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(SEEDS)).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")


def cub(root: Path) -> Path:
    base = root / "CUB_200_2011"
    names = ["001.Auk", "002.Owl"]
    rows = [(c, i) for c in range(2) for i in range(TRAIN + TEST)]
    images, labels, splits = [], [], []
    for number, (c, i) in enumerate(rows, 1):
        write_image(base / "images" / names[c] / f"{names[c][4:]}_{i}.jpg")
        images.append(f"{number} {names[c]}/{names[c][4:]}_{i}.jpg")
        labels.append(f"{number} {c + 1}")
        splits.append(f"{number} {int(i < TRAIN)}")
    tables = {"images": images, "image_class_labels": labels, "train_test_split": splits}
    tables["classes"] = [f"{c} {name}" for c, name in enumerate(names, 1)]
    for table, lines in tables.items():
        (base / f"{table}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_annotations(path: Path, files: list[str], classes: list[int]) -> None:
    """A struct array as in the devkit; the box fields are there, but nothing reads them."""
    rows = np.empty(len(files), dtype=[("bbox_x1", object), ("class", object), ("fname", object)])
    for row, file, number in zip(rows, files, classes, strict=True):
        row["bbox_x1"], row["class"], row["fname"] = 1.0, float(number), file
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": rows})


def cars(root: Path) -> Path:
    base = root / "stanford_cars"
    for part, count, path in (
        ("train", TRAIN, base / "devkit" / "cars_train_annos.mat"),
        ("test", TEST, base / "cars_test_annos_withlabels.mat"),
    ):
        files = [f"{i:05d}.jpg" for i in range(1, 2 * count + 1)]
        for file in files:
            write_image(base / f"cars_{part}" / file)
        write_annotations(path, files, [1 + i % 2 for i in range(2 * count)])
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    return root


def _folders(root: Path, names: list[str], evaluation: str, file: Callable[[str, str, int], str]) -> Path:
    for part, count in (("train", TRAIN), (evaluation, TEST)):
        for name in names:
            for i in range(count):
                write_image(root / part / name / file(part, name, i))
    return root


def cars_folders(root: Path) -> Path:
    return _folders(root, ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], "test", lambda p, n, i: f"{i:05d}.jpg")


def imagenet(root: Path) -> Path:
    def file(part: str, name: str, i: int) -> str:
        return f"{name}_{i}.JPEG" if part == "train" else f"ILSVRC2012_val_{name[-1]}{i}.JPEG"

    return _folders(root, ["n01440764", "n01443537"], "val", file)


def write_inat_json(root: Path, part: str, rows: list[tuple[str, int]], categories: tuple[int, ...] = (4, 9)) -> None:
    first = {"train": 100, "val": 500}[part]
    content = {
        "categories": [{"id": i, "name": f"species {i}"} for i in reversed(categories)],
        "images": [{"id": first + i, "file_name": f"train_val2019/{file}"} for i, (file, _) in enumerate(rows)],
        "annotations": [{"id": i, "image_id": first + i, "category_id": c} for i, (_, c) in enumerate(rows)],
    }
    (root / f"{part}2019.json").write_text(json.dumps(content))


def inat_rows(part: str) -> list[tuple[str, int]]:
    count = {"train": TRAIN, "val": TEST}[part]
    return [(f"Birds/{c}/{part}{i}.jpg", c) for c in (9, 4) for i in range(count)]


def inat(root: Path) -> Path:
    for part in ("train", "val"):
        for file, _ in inat_rows(part):
            write_image(root / "train_val2019" / file)
        write_inat_json(root, part, inat_rows(part))
    return root


def write_flowers_lists(base: Path, labels: list[int], train: list[int], val: list[int], test: list[int]) -> None:
    savemat(base / "imagelabels.mat", {"labels": np.array(labels, dtype=np.uint8)})
    savemat(base / "setid.mat", {"trnid": np.array(train), "valid": np.array(val), "tstid": np.array(test)})


FLOWERS = {"labels": [1, 2] * 5, "train": [9, 2, 7, 4, 1, 10], "val": [3, 6], "test": [5, 8]}


def flowers(root: Path) -> Path:
    base = root / "flowers-102"
    for i in range(1, 11):
        write_image(base / "jpg" / f"image_{i:05d}.jpg")
    write_flowers_lists(base, **FLOWERS)
    return root


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path], str, Published]] = {
    "cub": ("cub200", cub, "test", Published({"train": 6, "test": 4}, 2)),
    "cars": ("stanford_cars", cars, "test", Published({"train": 6, "test": 4}, 2)),
    "cars_folders": ("stanford_cars", cars_folders, "test", Published({"train": 6, "test": 4}, 2)),
    "imagenet": ("imagenet", imagenet, "val", Published({"train": 6, "val": 4}, 2, evaluation="val")),
    "inat": ("inat2019", inat, "val", Published({"train": 6, "val": 4}, 2, evaluation="val")),
    "flowers": ("flowers102", flowers, "test", Published({"train": 6, "val": 2, "test": 2}, 2, "trainval")),
}
"""By layout: source, writer, evaluation part, and the numbers that its tests put in the place of the published ones."""
