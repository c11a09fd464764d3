"""Data sets with boxes and masks of objects: COCO 2017, and any other in COCO's format as ``coco_folder``."""

from pathlib import Path

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from mlomae.data.detections import Detections
from mlomae.data.paths import data_folder, existing_file, existing_folder, inner_folder
from mlomae.data.registry import Published, check_split, register_dataset

# By their published ids, which skip ten of 1 to 90, as torchvision's detectors name them.
NAMES = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
COCO_CATEGORIES = {id_: name for id_, name in enumerate(NAMES) if name not in ("__background__", "N/A")}

URL = "http://images.cocodataset.org"
BY_HAND = f"""\
COCO 2017 is 20 GB (annotations CC BY 4.0, images under their Flickr licences); download and unpack into {{root}}
  {URL}/annotations/annotations_trainval2017.zip (241 MB, md5 f4bbac642086de4f52a3fdda2de5fa2c)
    -> {{root}}/annotations/
  {URL}/zips/train2017.zip (18 GB, md5 cced6f7f71b7629ddf16f17bbcfab6b2) -> {{root}}/train2017/
  {URL}/zips/val2017.zip (778 MB, md5 442b8da7639aecaf257c1dceb8ba8c80) -> {{root}}/val2017/"""


@register_dataset("coco", Published({"train": 118_287, "val": 5_000}, 80, evaluation="val"), BY_HAND)
class Coco(Detections):
    """COCO 2017, decoded on each access: 80 categories of objects, 118,287 training and 5,000 validation images.

    The labels of its test split are not public: evaluation is on ``val``.
    Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Args:
        root: the folder with annotations/, train2017/ and val2017/, or the one that holds it as ``coco``.
        split: ``train`` or ``val``.
        subset: accept a part of the published images, listed in files of the published names.
        classes: names of the classes to use; all 80 by default.

    Raises ConfigError for an unknown split, DataError for a missing file or folder, besides what Detections raises.
    """

    remedy = "unpack COCO's archives again (`mlomae data prepare coco ROOT` says which); other sets are a coco_folder"

    def __init__(self, root: str, split: str = "train", subset: bool = False, classes: list[str] | None = None) -> None:
        check_split(self.name, split)
        base = data_folder(root, self.name, ["coco", "coco2017"], ["annotations"])
        path = existing_file(base / "annotations" / f"instances_{split}2017.json", self.name, self.remedy)
        images = inner_folder(base / f"{split}2017", self.name, self.remedy)
        super().__init__(split, base, path, images, COCO_CATEGORIES, subset, classes)


ROBOFLOW = "_annotations.coco.json"
"""The annotation file beside the images of each split, as Roboflow exports them."""


@register_dataset("coco_folder")
class CocoFolder(Detections):
    """Images in ``ROOT/SPLIT``, and objects in ``ROOT/annotations/instances_SPLIT.json`` or beside them.

    Args:
        root: folder of the data set.
        split: its name.
        annotations: the annotation file, if it is not ROOT/annotations/instances_<split>.json; relative to ``root``.
        images: the folder of the images, if it is not ROOT/<split>; relative to ``root``. Data sets with the same one
            are considered disjoint if the images they list are.
        classes: names of the classes to use; all by default.

    Raises DataError for a missing file or folder, besides what Detections raises.
    """

    named_by_folder = True
    layout = "annotations/instances_train.json"
    of_one_split = ("annotations",)

    def __init__(
        self,
        root: str,
        split: str = "train",
        annotations: str | None = None,
        images: str | None = None,
        classes: list[str] | None = None,
    ) -> None:
        base = existing_folder(root, self.name)
        have = ", ".join(sorted(self.list_splits(base))) or "none"
        remedy = f"set `split` to one that is annotated ({have}), or `annotations` to the annotation file"
        roboflow = f"{split}/{ROBOFLOW}"
        usual = roboflow if (base / roboflow).is_file() else f"annotations/instances_{split}.json"
        named = annotations or usual
        path = existing_file(base / Path(named).expanduser(), self.name, remedy)
        remedy = "set `images` to the folder of the images"
        folder = inner_folder(base / Path(images or split).expanduser(), self.name, remedy)
        self._shown = f" ({path.name})" if annotations else ""
        super().__init__(split, base, path, folder, classes=classes, shares_folder=images is not None)

    @classmethod
    def list_splits(cls, base: Path) -> list[str]:
        """The splits with an annotation file of a usual name."""
        found = [path.stem.removeprefix("instances_") for path in base.glob("annotations/instances_*.json")]
        return found + [path.parent.name for path in base.glob(f"*/{ROBOFLOW}")]

    def describe(self) -> str:
        return super().describe() + self._shown
