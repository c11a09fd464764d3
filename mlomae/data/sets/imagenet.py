"""ImageNet-1K (ILSVRC 2012) in its usual folders: 1,281,167 images in train/<wnid>/ and 50,000 in val/<wnid>/.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015. The test labels are not
public: evaluation is on ``val``.
"""

import os
import re
from pathlib import Path

from mlomae.data.paths import LabelledFiles, first_names, inner_folder, scan_classes, subfolders
from mlomae.data.published import PublishedSource
from mlomae.data.reader import IMAGE_ENDINGS
from mlomae.data.registry import PUBLISHED, Published, register_dataset

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
    """ImageNet-1K; classes are the WordNet ids, sorted.

    ``root`` is the folder with train/ and val/, or the one that holds ILSVRC/Data/CLS-LOC. ``split`` is ``train`` or
    ``val``. Only that split is counted, because listing the training images can take minutes; opening ``train`` checks
    that no file name is in both. Other arguments and errors as in PublishedSource.
    """

    remedy = "unpack the archives again (`mlomae data prepare imagenet ROOT` says how)"
    inner = ("ILSVRC/Data/CLS-LOC",)
    markers = ("train", "val")

    def read_lists(self, base: Path, split: str) -> tuple[list[str], dict[str, LabelledFiles]]:
        folders = {part: inner_folder(base / part, "imagenet", self.remedy) for part in PUBLISHED["imagenet"].counts}
        if folders["train"] == folders["val"]:
            raise self.fault(f"train and val are one folder, {folders['val']}")
        train, val = (self._class_names(folder) for folder in folders.values())
        if odd := sorted(set(train) ^ set(val)):
            raise self.fault(f"in {base} train/ and val/ differ in class {first_names(odd)}")
        names, listed = scan_classes(folders[split])
        if split == "train":  # file names of ImageNet are unique: one that is in both splits is one image
            evaluated = {os.path.basename(file) for file in scan_classes(folders["val"])[1].files}
            if both := [file for file in listed.files if os.path.basename(file) in evaluated]:
                raise self.fault(f"in {base} {first_names(both)} of train/ is in val/ too")
        return names, {split: listed}

    def _class_names(self, folder: Path) -> list[str]:
        """Class folders, sorted. Raises DataError if they are not named by WordNet ids, or images are outside them."""
        names = subfolders(folder)
        if odd := [name for name in names if not re.fullmatch(r"n\d{8}", name)]:
            remedy = "name class folders by WordNet id (n01440764), or use type='imagefolder'"
            raise self.fault(f"{folder} has folders that are not classes ({first_names(odd)})", remedy)
        if not names and any(name.lower().endswith(IMAGE_ENDINGS) for name in os.listdir(folder)):
            remedy = f"move each image into its class, {folder / '<wnid>'} (`mlomae data prepare imagenet ROOT`)"
            raise self.fault(f"the images of {folder} are not in class folders", remedy)
        return names
