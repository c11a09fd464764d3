"""Oxford Flowers-102: 1,020 training, 1,020 validation and 6,149 test images of 102 flowers.

Source: Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008.
Accuracies are usually reported after training on train and val together.
"""

from pathlib import Path
from typing import ClassVar

from torchvision.datasets import Flowers102 as Names

from mlomae.data.paths import LabelledFiles
from mlomae.data.published import PublishedSource
from mlomae.data.registry import Download, Published, register_dataset

URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
FILES = {
    f"{URL}/102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
    f"{URL}/imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    f"{URL}/setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
}


@register_dataset(
    "flowers102",
    Published({"train": 1_020, "val": 1_020, "test": 6_149}, 102, training="trainval"),
    Download("flowers-102", FILES, inside=True),
)
class Flowers102(PublishedSource):
    """Oxford Flowers-102 as published.

    ``root`` is the folder with jpg/, imagelabels.mat and setid.mat, or one that holds it under torchvision's name,
    ``flowers-102``. ``split`` is ``train``, ``val``, ``trainval`` (the two together) or ``test``. Other arguments and
    errors as in PublishedSource.
    """

    remedy = "unpack 102flowers.tgz and download imagelabels.mat and setid.mat again"
    inner = ("flowers-102",)
    markers = ("imagelabels.mat", "setid.mat", "jpg")
    combined: ClassVar = {"trainval": ["train", "val"]}

    def read_lists(self, base: Path, split: str) -> tuple[list[str], dict[str, LabelledFiles]]:
        path, sets = base / "imagelabels.mat", base / "setid.mat"
        labels = self.integers(self.read_mat(path, "labels"), path)
        if labels.min() < 1:
            raise self.fault(f"{path} has labels below 1")
        parts = {}
        for part, variable in {"train": "trnid", "val": "valid", "test": "tstid"}.items():
            ids = self.integers(self.read_mat(sets, variable), sets)
            if len(ids) and not (ids.min() >= 1 and ids.max() <= len(labels)):
                raise self.fault(f"{sets} names images outside 1 to {len(labels)}, the labelled")
            files = [f"image_{i:05d}.jpg" for i in ids]
            parts[part] = LabelledFiles((base / "jpg").resolve(), files, labels[ids - 1] - 1)
        names = getattr(Names, "classes", [])[: labels.max()]  # numbers if torchvision's version has none
        return [*names, *(f"flower_{i + 1:03d}" for i in range(len(names), labels.max()))], parts
