"""Tiny-ImageNet as published: ``train/<wnid>/images/*.JPEG``, and ``val/images`` with labels in a text file.

The test labels are not public: evaluation is on ``val``. Classes are those of ``wnids.txt``.
"""

from pathlib import Path

from mlomae.data.images import MemorySource
from mlomae.data.paths import LabelledFiles, existing_file, existing_folder, scan_classes
from mlomae.data.published import check_split
from mlomae.data.reader import decode_all
from mlomae.data.registry import Download, Published, register_dataset

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


@register_dataset(
    "tiny_imagenet",
    Published({"train": 100_000, "val": 10_000}, 200, evaluation="val"),
    Download("tiny-imagenet-200", {URL: "90528d7ca1a48142e341f4ef8d21d0de"}),
)
class TinyImageNet(MemorySource):
    """64-pixel images of up to 200 classes, decoded into memory; subsets of the published files are accepted.

    ``root`` is the folder tiny-imagenet-200, ``split`` is ``train`` or ``val``. Raises ConfigError for a split without
    labels, DataError for missing or contradictory files.
    """

    remedy = "unpack tiny-imagenet-200.zip again"

    def __init__(self, root: str, split: str = "train") -> None:
        base = existing_folder(root, "tiny_imagenet")
        check_split("tiny_imagenet", split)
        path = existing_file(base / "wnids.txt", "tiny_imagenet", "give the folder tiny-imagenet-200 as `root`")
        classes = sorted(path.read_text().split())
        if split == "train":
            folder = existing_folder(base / "train", "tiny_imagenet")
            found, listed = scan_classes(folder)
            if found != classes:
                raise self.fault(f"train/ and wnids.txt differ in class '{min(set(found) ^ set(classes))}'")
        else:
            folder = existing_folder(base / "val" / "images", "tiny_imagenet")
            listed = self._annotated(base / "val" / "val_annotations.txt", folder, classes)
        images_NCHW = decode_all(folder, listed.files)
        super().__init__("tiny_imagenet", split, str(base), classes, images_NCHW, listed.labels, [str(folder)])

    def _annotated(self, table: Path, folder: Path, classes: list[str]) -> LabelledFiles:
        """Files of ``folder`` and their labels, as ``table`` gives them."""
        existing_file(table, "tiny_imagenet", f"without it the validation images have no labels; {self.remedy}")
        index = {name: i for i, name in enumerate(classes)}
        files, labels = [], []
        for number, line in enumerate(table.read_text().splitlines(), 1):
            file, wnid, *_ = [*line.split("\t"), ""]
            if wnid not in index:
                raise self.fault(f"{table}, line {number}: class '{wnid}' is not in wnids.txt")
            if not (folder / file).is_file():
                raise self.fault(f"{table} names {file}, which val/images lacks")
            files.append(file)
            labels.append(index[wnid])
        if not files:
            raise self.fault(f"{table} is empty")
        return LabelledFiles(folder, files, labels)
