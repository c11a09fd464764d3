"""Fine-grained classes: CUB-200-2011, Stanford Cars, Oxford Flowers-102 and iNaturalist 2019, as published."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from torchvision.datasets import Flowers102 as TorchvisionFlowers

from mlomae.common.errors import first_names
from mlomae.data.formats.coco import file_names, read_tables
from mlomae.data.paths import LabelledFiles, existing_file, inner_folder, scan_classes, text_of
from mlomae.data.registry import PUBLISHED, Download, Lists, Published, PublishedSource, register_dataset

CUB = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"


@register_dataset(
    "cub200",
    Published({"train": 5_994, "test": 5_794}, 200),
    Download("CUB_200_2011", {CUB: "97eceeb196236b17998738112f37df78"}),
)
class Cub200(PublishedSource):
    """CUB-200-2011: 200 species of birds, 5,994 training and 5,794 test images, one folder with lists in text files.

    ``root`` is ``CUB_200_2011`` or the folder that holds it: images/, images.txt, image_class_labels.txt,
    train_test_split.txt and classes.txt, and bounding_boxes.txt, if objects are to be known. ``split`` is ``train`` or
    ``test``. Other arguments and errors as in PublishedSource.

    Source: Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001.
    """

    remedy = "unpack CUB_200_2011.tgz again"
    inner = ("CUB_200_2011",)
    markers = ("images.txt",)

    def __init__(self, root: str, split: str = "train", subset: bool = False) -> None:
        super().__init__(root, split, subset)
        table = Path(self.root) / "bounding_boxes.txt"
        if table.is_file():
            boxes = self._table(table)
            if missing := [image for image in self._ids[split] if image not in boxes]:
                raise self.fault(f"{table} lacks image {first_names(missing)}")
            corners = [self._corners(table, boxes[image]) for image in self._ids[split]]
            self.object_boxes, self.has_objects = np.array(corners), True

    def _corners(self, table: Path, text: str) -> list[float]:
        try:
            left, top, width, height = map(float, text.split())
        except ValueError as error:
            raise self.fault(f"{table} has a box '{text}', which is not four numbers") from error
        return [left, top, left + width, top + height]

    def read_lists(self, base: Path, split: str) -> Lists:
        images, names = (self._table(base / file) for file in ("images.txt", "classes.txt"))
        class_of = self._numbers(base / "image_class_labels.txt", images, {str(n) for n in names})
        in_train = self._numbers(base / "train_test_split.txt", images, {"0", "1"})
        for image, file in images.items():
            name = names[class_of[image]]
            if file.rpartition("/")[0] != name:
                raise self.fault(f"image_class_labels.txt in {base} puts {file} into class '{name}', not its folder's")
        parts = {}
        self._ids = {part: [i for i in images if in_train[i] == flag] for part, flag in (("train", 1), ("test", 0))}
        for part, ids in self._ids.items():
            files, labels = [images[i] for i in ids], [class_of[i] for i in ids]
            parts[part] = LabelledFiles((base / "images").resolve(), files, labels)
        return names, parts

    def _table(self, path: Path) -> dict[int, str]:
        """Lines ``<number> <rest>`` by number. Raises DataError naming a line that is not one or repeats a number."""
        existing_file(path, self.name, self.remedy)
        table: dict[int, str] = {}
        for line_number, line in enumerate(text_of(path).splitlines(), 1):
            if line.strip():
                number, _, rest = line.strip().replace("\\", "/").partition(" ")
                if not number.isdecimal() or not rest.strip() or int(number) in table:
                    raise self.fault(f"{path}, line {line_number}: expected a new number and a value")
                table[int(number)] = rest.strip()
        return table

    def _numbers(self, path: Path, images: dict[int, str], allowed: set[str]) -> dict[int, int]:
        """A table with one row per image of ``images.txt``, each with one of the numbers ``allowed``."""
        table = self._table(path)
        if odd := sorted(images.keys() ^ table.keys()):
            raise self.fault(f"{path} and images.txt differ in image {first_names(odd)}")
        for image, text in table.items():
            if text not in allowed:
                raise self.fault(f"{path} gives image {image} the invalid value '{text}'")
        return {image: int(text) for image, text in table.items()}


CARS_BY_HAND = """\
The address of Stanford Cars is dead (https://github.com/pytorch/vision/issues/7545 names copies); put
  the training images 00001.jpg ... into {root}/cars_train/, the test images into {root}/cars_test/
  cars_meta.mat and cars_train_annos.mat of car_devkit.tgz into {root}/devkit/
  cars_test_annos_withlabels.mat into {root}/
or, from a copy in class folders, the images into {root}/train/<model>/ and {root}/test/<model>/
  (e.g. https://www.kaggle.com/datasets/cyizhuo/stanford-cars-by-classes-folder)"""


@register_dataset("stanford_cars", Published({"train": 8_144, "test": 8_041}, 196), CARS_BY_HAND)
class StanfordCars(PublishedSource):
    """Stanford Cars: 196 models, 8,144 training and 8,041 test images, in one of two layouts.

    ``root`` is the folder with cars_train/, cars_test/, devkit/ (cars_meta.mat, cars_train_annos.mat) and
    cars_test_annos_withlabels.mat, the published layout (as torchvision reads it); or one with train/<model>/ and
    test/<model>/; or one that holds either under the name ``stanford_cars``. If both exist the published one is read.
    Labels follow the devkit's order in the first layout and the sorted names in the second. ``split`` is ``train`` or
    ``test``. Other arguments and errors as in PublishedSource.

    Source: Krause et al., "3D Object Representations for Fine-Grained Categorization", 3DRR 2013.
    """

    remedy = "`mlomae data prepare stanford_cars ROOT` lists the files and where to get them"
    inner = ("stanford_cars",)
    markers = ("devkit", "cars_train", "cars_test", "train", "test")

    def read_lists(self, base: Path, split: str) -> Lists:
        in_folders = not any((base / name).exists() for name in self.markers[:3])
        if in_folders and not any((base / name).is_dir() for name in self.markers[3:]):
            raise self.fault(f"{base} has neither devkit/ nor train/ and test/")
        names, parts = self._class_folders(base) if in_folders else self._annotated(base)
        if parts["train"].folder == parts["test"].folder:
            raise self.fault(f"train and test are one folder, {parts['test'].folder}")
        return names, parts

    def _annotated(self, base: Path) -> Lists:
        """The published layout. The labels of the test split are in devkit/ or next to it."""
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
            folder = inner_folder(base / f"cars_{part}", self.name, self.remedy)
            twice = folder / f"cars_{part}"  # some copies have the folder twice, one inside the other
            folder = twice.resolve() if twice.is_dir() else folder
            parts[part] = LabelledFiles(folder, [str(file) for file in rows["fname"]], labels)
        return dict(enumerate(names, 1)), parts

    def _class_folders(self, base: Path) -> Lists:
        found = {part: scan_classes(inner_folder(base / part, self.name, self.remedy)) for part in ("train", "test")}
        names = sorted({name for classes, _ in found.values() for name in classes})
        return dict(enumerate(names)), {
            part: replace(listed, labels=np.searchsorted(names, classes)[np.asarray(listed.labels)])
            for part, (classes, listed) in found.items()
        }


FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
FLOWERS_FILES = {
    f"{FLOWERS}/102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
    f"{FLOWERS}/imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    f"{FLOWERS}/setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
}


@register_dataset(
    "flowers102",
    Published({"train": 1_020, "val": 1_020, "test": 6_149}, 102, training="trainval"),
    Download("flowers-102", FLOWERS_FILES, inside=True),
)
class Flowers102(PublishedSource):
    """Oxford Flowers-102: 1,020 training, 1,020 validation and 6,149 test images of 102 flowers.

    ``root`` is the folder with jpg/, imagelabels.mat and setid.mat, or one that holds it under torchvision's name,
    ``flowers-102``. ``split`` is ``train``, ``val``, ``trainval`` (the two together, on which models are usually
    trained before accuracies are reported) or ``test``. Other arguments and errors as in PublishedSource.

    Source: Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008.
    """

    remedy = "unpack 102flowers.tgz and download imagelabels.mat and setid.mat again"
    inner = ("flowers-102",)
    markers = ("imagelabels.mat", "setid.mat", "jpg")
    combined: ClassVar = {"trainval": ["train", "val"]}

    def read_lists(self, base: Path, split: str) -> Lists:
        path, sets = base / "imagelabels.mat", base / "setid.mat"
        labels, parts = self.integers(self.read_mat(path, "labels"), path), {}
        for part, variable in {"train": "trnid", "val": "valid", "test": "tstid"}.items():
            ids = self.integers(self.read_mat(sets, variable), sets)
            if len(ids) and not (ids.min() >= 1 and ids.max() <= len(labels)):
                raise self.fault(f"{sets} names images without a label, which are 1 to {len(labels)}")
            files = [f"image_{i:05d}.jpg" for i in ids]
            parts[part] = LabelledFiles((base / "jpg").resolve(), files, labels[ids - 1])
        names = getattr(TorchvisionFlowers, "classes", [])  # numbers if torchvision's version has none
        numbers = [f"flower_{i:03d}" for i in range(len(names) + 1, labels.max() + 1)]
        return dict(enumerate([*names, *numbers], 1)), parts


INAT = "https://ml-inat-competition-datasets.s3.amazonaws.com/2019"
INAT_BY_HAND = f"""\
iNaturalist 2019 is 75 GB and for non-commercial research; read the terms at
https://github.com/visipedia/inat_comp/tree/master/2019, then download and unpack into {{root}}
  {INAT}/train_val2019.tar.gz (md5 c60a6e2962c9b8ccbd458d12c8582644) -> {{root}}/train_val2019/
  {INAT}/train2019.json.tar.gz (md5 b06a6683537867c0d5c7a45f407a306d) -> {{root}}/train2019.json
  {INAT}/val2019.json.tar.gz (md5 5cc5509b0fe495f1c8c1362612448497) -> {{root}}/val2019.json"""


@register_dataset("inat2019", Published({"train": 265_213, "val": 3_030}, 1010, evaluation="val"), INAT_BY_HAND)
class INat2019(PublishedSource):
    """iNaturalist 2019 (the competition at FGVC6): 1,010 species, 265,213 training and 3,030 validation images.

    ``root`` is the folder with train2019.json, val2019.json, both in COCO's format, and train_val2019/. ``split`` is
    ``train`` or ``val``. Other arguments and errors as in PublishedSource.

    Source: github.com/visipedia/inat_comp, 2019. The sum, 268,243, is the one its publishers state; the validation
    split has three images per class. The test labels are not public: evaluation is on ``val``.
    """

    remedy = "unpack train_val2019.tar.gz, train2019.json.tar.gz and val2019.json.tar.gz again"

    def read_lists(self, base: Path, split: str) -> Lists:
        folder, names, parts = (base / "train_val2019").resolve(), {}, {}
        for part in PUBLISHED[self.name].counts:
            path = existing_file(base / f"{part}2019.json", self.name, self.remedy)
            images, categories, annotations = read_tables(path, f"{self.name}: {path}")
            files = file_names(images, folder).files
            annotated, labels = (annotations.integers(key).tolist() for key in ("image_id", "category_id"))
            if sorted(annotated) != sorted(images.ids.tolist()):
                odd = first_names(sorted({*annotated} ^ {*images.ids.tolist()}))
                raise self.fault(f"{path} does not annotate each image once (image {odd})")
            label_of = dict(zip(annotated, labels, strict=True))
            parts[part] = LabelledFiles(folder, files, [label_of[image] for image in images.ids.tolist()])
            names[part] = dict(zip(categories.ids.tolist(), categories.column("name", {str}), strict=True))
        if odd := first_names(sorted(dict(names["train"].items() ^ names["val"].items()))):
            raise self.fault(f"train2019.json and val2019.json differ in category {odd}")
        return names["train"], parts
