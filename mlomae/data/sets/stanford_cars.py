"""Stanford Cars: 196 models, 8,144 training and 8,041 test images.

Source: Krause et al., "3D Object Representations for Fine-Grained Categorization", 3DRR 2013. Its address is dead;
copies exist in the published layout (as torchvision reads it) and in class folders, train/ and test/.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mlomae.data.paths import LabelledFiles, inner_folder, scan_classes
from mlomae.data.published import PublishedSource
from mlomae.data.registry import Published, register_dataset

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

    remedy = "`mlomae data prepare stanford_cars ROOT` lists the files and where to get them"
    inner = ("stanford_cars",)
    markers = ("devkit", "cars_train", "cars_test", "train", "test")

    def read_lists(self, base: Path, split: str) -> tuple[list[str], dict[str, LabelledFiles]]:
        in_folders = not any((base / name).exists() for name in self.markers[:3])
        if in_folders and not any((base / name).is_dir() for name in self.markers[3:]):
            raise self.fault(f"{base} has neither devkit/ nor train/ and test/")
        names, parts = self._class_folders(base) if in_folders else self._annotated(base)
        if parts["train"].folder == parts["test"].folder:
            raise self.fault(f"train and test are one folder, {parts['test'].folder}")
        return names, parts

    def _annotated(self, base: Path) -> tuple[list[str], dict[str, LabelledFiles]]:
        """The published layout. The labels of the test split are beside devkit/ or in it."""
        names = [str(name) for name in self.read_mat(base / "devkit" / "cars_meta.mat", "class_names")]
        parts = {}
        for part, file in {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}.items():
            path = base / "devkit" / file
            if part == "test" and not path.is_file():
                path = base / file
            rows = self.read_mat(path, "annotations")
            if rows.dtype.names is None or not {"fname", "class"} <= set(rows.dtype.names):
                raise self.fault(f"{path} gives no file and class for its images")
            labels = self.integers(rows["class"].tolist(), path)
            if labels.min() < 1 or labels.max() > len(names):
                raise self.fault(f"{path} has classes outside 1 to {len(names)}, those of cars_meta.mat")
            folder = inner_folder(base / f"cars_{part}", "stanford_cars", self.remedy)
            twice = folder / f"cars_{part}"  # some copies have the folder twice, one inside the other
            folder = twice.resolve() if twice.is_dir() else folder
            parts[part] = LabelledFiles(folder, [str(file) for file in rows["fname"]], labels - 1)
        return names, parts

    def _class_folders(self, base: Path) -> tuple[list[str], dict[str, LabelledFiles]]:
        found = {
            part: scan_classes(inner_folder(base / part, "stanford_cars", self.remedy)) for part in ("train", "test")
        }
        names = sorted({name for classes, _ in found.values() for name in classes})
        parts = {}
        for part, (classes, listed) in found.items():
            index = np.array([names.index(name) for name in classes])
            parts[part] = replace(listed, labels=index[np.asarray(listed.labels)])
        return names, parts
