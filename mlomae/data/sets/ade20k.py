"""ADE20K as the scene parsing challenge uses it: 150 classes, 20,210 training and 2,000 validation images.

Source: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017; ADEChallengeData2016.zip. The test labels are
not public: evaluation is on ``validation``. The full release, with thousands of object names in RGB pictures beside the
images, is another data set.
"""

import os
from pathlib import Path

from mlomae.data.paths import data_folder
from mlomae.data.published import check_split
from mlomae.data.registry import Download, Published, register_dataset
from mlomae.data.scenes import Scenes

URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
REMEDY = "unpack ADEChallengeData2016.zip again (`mlomae data prepare ade20k ROOT` downloads it)"


@register_dataset(
    "ade20k",
    Published({"training": 20_210, "validation": 2_000}, 150, training="training", evaluation="validation"),
    Download("ADEChallengeData2016", {URL: "7328b3957e407ddae1d3cbf487f149ef"}),
)
class ADE20K(Scenes):
    """ADE20K, 150 classes, decoded on each access.

    Args:
        root: ``ADEChallengeData2016`` or the folder that holds it.
        split: ``training`` or ``validation``.
        subset: accept a part of the published images.

    Raises ConfigError for an unknown split, DataError for the full release, besides what Scenes raises.
    """

    remedy = REMEDY
    value_remedy = f"the challenge's have 0 (no label) and 1 to 150, none above; {REMEDY}"

    def __init__(self, root: str, split: str = "training", subset: bool = False) -> None:
        check_split("ade20k", split)
        base = data_folder(root, "ade20k", ["ADEChallengeData2016"], ["images", "annotations"])
        if mark := _full_release(base):
            raise self.fault(f"{base} is the full ADE20K release (it has {mark}), not the challenge's 150 classes")
        super().__init__(split, base, ADE20K_CLASSES, subset)


def _full_release(base: Path) -> Path | None:
    """A file or folder in ``base`` that only the full release has, if any."""
    marks = [base / mark for mark in ("index_ade20k.pkl", "index_ade20k.mat", "images/ADE")]
    for mark in [*marks, *base.glob("ADE20K_20*")]:
        if mark.exists():
            return mark
    for kind in ("images", "annotations"):
        for here, _, files in os.walk(base / kind):
            for file in files:
                if file.endswith("_seg.png"):
                    return Path(here, file)
            if files:  # the first folder with files, which has thousands, is enough
                break
    return None


# By their values 1 to 150: the first name that the challenge's list objectInfo150.txt gives each class, as in
# github.com/CSAILVision/sceneparsing.
# fmt: off
ADE20K_CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television", "airplane", "dirt track",
    "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van",
    "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel",
    "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture",
    "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor",
    "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)
# fmt: on
