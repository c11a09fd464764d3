"""ImageNet-1K in its usual folders, and Tiny-ImageNet: evaluation is on ``val``, as the test labels are not public."""

import os
import re
from pathlib import Path

import numpy as np

from mlomae.common.errors import first_names
from mlomae.data.images import MemorySource
from mlomae.data.paths import (
    LabelledFiles,
    existing_file,
    existing_folder,
    inner_folder,
    scan_classes,
    subfolders,
    text_of,
)
from mlomae.data.reader import decode_all, is_image
from mlomae.data.registry import PUBLISHED, Download, Lists, Published, PublishedSource, check_split, register_dataset

BY_HAND = """\
ImageNet is given to registered users only; register at https://image-net.org/download.php, then download
  ILSVRC2012_img_train.tar (138 GB, md5 1d675b47d978889d74fa0da5fadfb00e) and unpack it, then the archive of
    each class that it holds, n01440764.tar ..., into {root}/train/n01440764/ ...
  ILSVRC2012_img_val.tar (6.3 GB, md5 29b22e2961454d5413ddabcf34fc5622) and
  ILSVRC2012_devkit_t12.tar.gz (md5 fa75699e90414af021442c21a62c3abf)
    torchvision.datasets.ImageNet('{root}', split='val') unpacks these two into {root}/val/n01440764/ ...,
    and the first, with split='train', into {root}/train/"""


@register_dataset("imagenet", Published({"train": 1_281_167, "val": 50_000}, 1000, evaluation="val"), BY_HAND)
class ImageNet(PublishedSource):
    """ImageNet-1K (ILSVRC 2012): 1,281,167 images in train/<wnid>/, 50,000 in val/<wnid>/; classes are the WordNet ids.

    ``root`` is the folder with train/ and val/, or the one that holds ILSVRC/Data/CLS-LOC. ``split`` is ``train`` or
    ``val``. Only that split is counted, because listing the training images can take minutes; opening ``train`` checks
    that no file name is in both. Other arguments and errors as in PublishedSource.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
    """

    remedy = "unpack the archives again (`mlomae data prepare imagenet ROOT` says how)"
    inner = ("ILSVRC/Data/CLS-LOC",)
    markers = ("train", "val")

    def read_lists(self, base: Path, split: str) -> Lists:
        folders = {part: inner_folder(base / part, self.name, self.remedy) for part in PUBLISHED[self.name].counts}
        if folders["train"] == folders["val"]:
            raise self.fault(f"train and val are one folder, {folders['val']}")
        classes = {part: subfolders(folder) for part, folder in folders.items()}
        for part, folder in folders.items():
            if odd := [name for name in classes[part] if not re.fullmatch(r"n\d{8}", name)]:
                remedy = "name class folders by WordNet id (n01440764), or use type='imagefolder'"
                raise self.fault(f"{folder} has folders that are not classes ({first_names(odd)})", remedy)
            if not classes[part] and any(map(is_image, os.listdir(folder))):
                remedy = f"move each image into its class, {folder / '<wnid>'} (`mlomae data prepare imagenet ROOT`)"
                raise self.fault(f"the images of {folder} are not in class folders", remedy)
        if odd := sorted(set(classes["train"]) ^ set(classes["val"])):
            raise self.fault(f"in {base} train/ and val/ differ in class {first_names(odd)}")
        names, listed = scan_classes(folders[split])
        if split == "train":  # file names of ImageNet are unique: one that is in both splits is one image
            evaluated = {os.path.basename(file) for file in scan_classes(folders["val"])[1].files}
            if both := [file for file in listed.files if os.path.basename(file) in evaluated]:
                raise self.fault(f"in {base} {first_names(both)} of train/ is in val/ too")
        return dict(enumerate(names)), {split: listed}


URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


@register_dataset(
    "tiny_imagenet",
    Published({"train": 100_000, "val": 10_000}, 200, evaluation="val"),
    Download("tiny-imagenet-200", {URL: "90528d7ca1a48142e341f4ef8d21d0de"}),
)
class TinyImageNet(MemorySource):
    """64-pixel images of up to 200 classes, decoded into memory; subsets of the published files are accepted.

    ``root`` is the folder tiny-imagenet-200 with wnids.txt, which lists the classes, ``train/<wnid>/images/*.JPEG`` and
    ``val/images`` with labels in a text file. ``split`` is ``train`` or ``val``. Where all of its images have published
    boxes (``train/<wnid>/<wnid>_boxes.txt``, the text file), these are the objects. Raises ConfigError for a split
    without labels, DataError for missing or contradictory files.
    """

    remedy = "unpack tiny-imagenet-200.zip again"

    def __init__(self, root: str, split: str = "train") -> None:
        base = existing_folder(root, self.name)
        check_split(self.name, split)
        path = existing_file(base / "wnids.txt", self.name, "give the folder tiny-imagenet-200 as `root`")
        classes = sorted(text_of(path).split())
        if split == "train":
            found, listed = scan_classes(existing_folder(base / "train", self.name))
            if found != classes:
                raise self.fault(f"train/ and wnids.txt differ in class '{min(set(found) ^ set(classes))}'")
            tables = [base / "train" / wnid / f"{wnid}_boxes.txt" for wnid in classes]
            boxes = {k: v for table in tables if table.is_file() for k, v in self._boxes(table, first=1).items()}
        else:
            listed = self._annotated(base / "val", classes)
            boxes = self._boxes(base / "val" / "val_annotations.txt", first=2)
        images_NCHW, places = decode_all(listed.folder, listed.files), [str(listed.folder)]
        super().__init__(self.name, split, str(base), classes, images_NCHW, listed.labels, places)
        self.left_out = listed.left_out
        found_boxes = [boxes.get(file.rpartition("/")[2]) for file in listed.files]
        if None not in found_boxes:
            self.object_boxes, self.has_objects = np.array(found_boxes), True

    def _boxes(self, table: Path, first: int) -> dict[str, list[float]]:
        """Box by name of the image, of those that ``table`` has: four whole numbers from column ``first``, the corners
        of the first and the last pixel inside."""
        boxes: dict[str, list[float]] = {}
        for number, line in enumerate(text_of(table).splitlines(), 1):
            file, *ends = [column for i, column in enumerate(line.split()) if i == 0 or i >= first]
            if not ends:
                continue
            if len(ends) != 4 or not all(end.isdecimal() for end in ends):
                raise self.fault(f"{table}, line {number}: expected the four ends of a box")
            left, top, right, bottom = map(float, ends)
            boxes[file] = [left, top, right + 1, bottom + 1]
        return boxes

    def _annotated(self, base: Path, classes: list[str]) -> LabelledFiles:
        """Files of ``base/images`` and their labels, as ``base/val_annotations.txt`` gives them."""
        instead = "or, if val/ has class folders, open the set as type='imagefolder'"
        folder, files, labels = inner_folder(base / "images", self.name, f"{self.remedy}, {instead}"), [], []
        remedy = f"without it the validation images have no labels; {self.remedy}"
        table = existing_file(base / "val_annotations.txt", self.name, remedy)
        for number, line in enumerate(text_of(table).splitlines(), 1):
            file, wnid, *_ = [*line.split("\t"), ""]
            if wnid not in classes:
                raise self.fault(f"{table}, line {number}: class '{wnid}' is not in wnids.txt")
            if not (folder / file).is_file():
                raise self.fault(f"{table} names {file}, which val/images lacks")
            files.append(file)
            labels.append(classes.index(wnid))
        if not files:
            raise self.fault(f"{table} is empty")
        return LabelledFiles(folder, files, labels)
