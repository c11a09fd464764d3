"""Stanford Cars: 196 models, 8,144 training and 8,041 test images.

Source: Krause et al., "3D Object Representations for Fine-Grained Categorization", 3DRR 2013. Its address is dead;
what circulates is the published layout (as torchvision reads it) and images in class folders, train/ and test/.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlomae.common.errors import DataError
from mlomae.data.formats.folder import scan
from mlomae.data.formats.matfiles import integers, read_mat
from mlomae.data.paths import data_folder
from mlomae.data.published import PUBLISHED, Part, PublishedSource, check_split, part_folder
from mlomae.data.sources import register_source

REMEDY = "`mlomae data prepare stanford_cars ROOT` lists the files and where to get them"


def _images(base: Path, part: str) -> Path:
    """``cars_train`` or ``cars_test``; a copy that circulates has it twice, one inside the other."""
    folder = base / f"cars_{part}"
    if not folder.is_dir():
        raise DataError(f"stanford_cars: {folder} is missing; {REMEDY}")
    return (folder / folder.name if (folder / folder.name).is_dir() else folder).resolve()


def _annotated(base: Path, part: str, classes: int) -> Part:
    """A part as its annotation file lists it. The labels of the test part lie beside devkit/ or in it."""
    if part == "train":
        path = base / "devkit" / "cars_train_annos.mat"
    else:
        name = "cars_test_annos_withlabels.mat"
        path = base / "devkit" / name if (base / "devkit" / name).is_file() else base / name
    rows = read_mat(path, "stanford_cars", "annotations", REMEDY)
    if rows.dtype.names is None or not {"fname", "class"} <= set(rows.dtype.names):
        raise DataError(f"stanford_cars: {path} gives no file and class for its images; {REMEDY}")
    labels = integers(rows["class"].tolist(), path, "stanford_cars", REMEDY)
    if labels.min() < 1 or labels.max() > classes:
        raise DataError(f"stanford_cars: {path} has classes outside 1 to {classes}, those of cars_meta.mat; {REMEDY}")
    return Part(_images(base, part), [str(file) for file in rows["fname"]], labels - 1)


def _published(base: Path) -> tuple[list[str], dict[str, Part]]:
    names = read_mat(base / "devkit" / "cars_meta.mat", "stanford_cars", "class_names", REMEDY)
    parts = {part: _annotated(base, part, len(names)) for part in PUBLISHED["stanford_cars"].counts}
    return [str(name) for name in names], parts


def _class_folders(base: Path) -> tuple[list[str], dict[str, Part]]:
    found = {}
    for part in PUBLISHED["stanford_cars"].counts:
        folder = part_folder("stanford_cars", base, part, REMEDY)
        found[part] = folder, scan(folder)
    names = sorted({name for _, (classes, _, _) in found.values() for name in classes})
    parts = {}
    for part, (folder, (classes, files, labels)) in found.items():
        index = np.array([names.index(name) for name in classes])
        parts[part] = Part(folder, files, index[labels])
    return names, parts


@register_source("stanford_cars")
class StanfordCars(PublishedSource):
    """Stanford Cars, decoded on each access.

    Args:
        root: the folder with cars_train/, cars_test/, devkit/ (cars_meta.mat, cars_train_annos.mat) and
            cars_test_annos_withlabels.mat, or one with train/<model>/ and test/<model>/; or what holds it under the
            name ``stanford_cars``. The published layout is preferred where both exist. Labels follow the devkit's
            order there and the sorted names here.
        split: ``train`` or ``test``.
        subset: accept a consistent part of the set.

    Raises ConfigError for an unknown split, DataError for files that are missing or contradict each other.
    """

    def __init__(self, root: str, split: str = "train", subset: bool = False) -> None:
        check_split("stanford_cars", split)
        markers = ["devkit", "cars_train", "cars_test", "train", "test"]
        base = data_folder(root, "stanford_cars", ["stanford_cars"], markers)
        in_folders = not any((base / name).exists() for name in markers[:3])
        if in_folders and not any((base / name).is_dir() for name in markers[3:]):
            raise DataError(f"stanford_cars: {base} has neither devkit/ nor train/ and test/; {REMEDY}")
        names, parts = _class_folders(base) if in_folders else _published(base)
        if parts["train"].folder == parts["test"].folder:
            raise DataError(f"stanford_cars: train and test are one folder, {parts['test'].folder}; {REMEDY}")
        super().__init__("stanford_cars", split, [split], base, names, parts, subset, REMEDY)
