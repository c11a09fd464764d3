"""Stanford Cars: 196 models, 8,144 training and 8,041 test images.

Source: Krause et al., "3D Object Representations for Fine-Grained Categorization", 3DRR 2013. Its address is dead;
copies exist in the published layout (as torchvision reads it) and in class folders, train/ and test/.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlomae.common.errors import DataError
from mlomae.data.formats.lists import integers, read_mat
from mlomae.data.paths import inner_folder, scan_classes
from mlomae.data.published import Part, PublishedSource
from mlomae.data.registry import PUBLISHED, Published, register_dataset

REMEDY = "`mlomae data prepare stanford_cars ROOT` lists the files and where to get them"
BY_HAND = """\
The address of Stanford Cars is dead (https://github.com/pytorch/vision/issues/7545 names copies); put
  the training images 00001.jpg ... into {root}/cars_train/, the test images into {root}/cars_test/
  cars_meta.mat and cars_train_annos.mat of car_devkit.tgz into {root}/devkit/
  cars_test_annos_withlabels.mat into {root}/
or, from a copy in class folders, the images into {root}/train/<model>/ and {root}/test/<model>/
  (e.g. https://www.kaggle.com/datasets/cyizhuo/stanford-cars-by-classes-folder)"""


@register_dataset("stanford_cars", Published({"train": 8_144, "test": 8_041}, 196), BY_HAND)
class StanfordCars(PublishedSource):
    """Stanford Cars in one of two layouts; if both exist the published one is read.

    ``root`` is the folder with cars_train/, cars_test/, devkit/ (cars_meta.mat, cars_train_annos.mat) and
    cars_test_annos_withlabels.mat, or one with train/<model>/ and test/<model>/; or one that holds either under the
    name ``stanford_cars``. Labels follow the devkit's order in the first layout and the sorted names in the second.
    ``split`` is ``train`` or ``test``. Other arguments and errors as in PublishedSource.
    """

    remedy = REMEDY
    inner = ("stanford_cars",)
    markers = ("devkit", "cars_train", "cars_test", "train", "test")

    def read_lists(self, base: Path, split: str) -> tuple[list[str], dict[str, Part]]:
        in_folders = not any((base / name).exists() for name in self.markers[:3])
        if in_folders and not any((base / name).is_dir() for name in self.markers[3:]):
            raise DataError(f"stanford_cars: {base} has neither devkit/ nor train/ and test/; {REMEDY}")
        names, parts = _class_folders(base) if in_folders else _published(base)
        if parts["train"].folder == parts["test"].folder:
            raise DataError(f"stanford_cars: train and test are one folder, {parts['test'].folder}; {REMEDY}")
        return names, parts


def _published(base: Path) -> tuple[list[str], dict[str, Part]]:
    names = read_mat(base / "devkit" / "cars_meta.mat", "stanford_cars", "class_names", REMEDY)
    parts = {part: _annotated(base, part, len(names)) for part in PUBLISHED["stanford_cars"].counts}
    return [str(name) for name in names], parts


def _annotated(base: Path, part: str, classes: int) -> Part:
    """A split as its annotation file lists it. The labels of the test split are beside devkit/ or in it."""
    name = "cars_train_annos.mat" if part == "train" else "cars_test_annos_withlabels.mat"
    path = base / "devkit" / name
    if part != "train" and not path.is_file():
        path = base / name
    rows = read_mat(path, "stanford_cars", "annotations", REMEDY)
    if rows.dtype.names is None or not {"fname", "class"} <= set(rows.dtype.names):
        raise DataError(f"stanford_cars: {path} gives no file and class for its images; {REMEDY}")
    labels = integers(rows["class"].tolist(), path, "stanford_cars", REMEDY)
    if labels.min() < 1 or labels.max() > classes:
        raise DataError(f"stanford_cars: {path} has classes outside 1 to {classes}, those of cars_meta.mat; {REMEDY}")
    folder = inner_folder(base / f"cars_{part}", "stanford_cars", REMEDY)
    if (folder / f"cars_{part}").is_dir():  # some copies have the folder twice, one inside the other
        folder = (folder / f"cars_{part}").resolve()
    return Part(folder, [str(file) for file in rows["fname"]], labels - 1)


def _class_folders(base: Path) -> tuple[list[str], dict[str, Part]]:
    folders = {part: inner_folder(base / part, "stanford_cars", REMEDY) for part in PUBLISHED["stanford_cars"].counts}
    found = {part: scan_classes(folder) for part, folder in folders.items()}
    names = sorted({name for classes, _, _ in found.values() for name in classes})
    parts = {}
    for part, (classes, files, labels) in found.items():
        index = np.array([names.index(name) for name in classes])
        parts[part] = Part(folders[part], files, index[labels])
    return names, parts
