"""COCO 2017, and any other set in its format: images in a folder, objects in an annotation file.

    ROOT/<split>/*.jpg
    ROOT/annotations/instances_<split>.json

Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. In COCO the folders are train2017 and
val2017; the labels of its test part are not public: ``val`` is evaluated on.
"""

from __future__ import annotations

from pathlib import Path

from mlomae.data.detections import Detections, register_detections
from mlomae.data.paths import data_folder, existing_file, existing_folder, split_folder
from mlomae.data.published import check_split, part_folder
from mlomae.data.sets.coco_classes import COCO_CATEGORIES

PREFIX, SUFFIX = "instances_", ".json"


@register_detections("coco")
class Coco(Detections):
    """COCO 2017 with its 80 categories, decoded on each access.

    Args:
        root: the folder with annotations/, train2017/ and val2017/, or the one that holds it as ``coco``.
        split: ``train`` or ``val``.
        subset: accept a part of the published images, listed in files of the published names.
        classes: names of the classes to look at; all 80 if left out.

    Raises ConfigError for an unknown split, DataError for a missing file or folder, besides what Detections raises.
    """

    remedy = "unpack COCO's archives again (`mlomae data prepare coco ROOT` says which); other sets are a coco_folder"

    def __init__(self, root: str, split: str = "train", subset: bool = False, classes: list[str] | None = None) -> None:
        check_split("coco", split)
        base = data_folder(root, "coco", ["coco", "coco2017"], ["annotations"])
        path = existing_file(base / "annotations" / f"{PREFIX}{split}2017{SUFFIX}", "coco", self.remedy)
        images = part_folder("coco", base, f"{split}2017", self.remedy)
        super().__init__("coco", split, base, path, images, COCO_CATEGORIES, subset, classes)


@register_detections("coco_folder")
class CocoFolder(Detections):
    """Any set in COCO's format, with the categories its annotation file has; what `write_coco` writes, for one.

    Args:
        root: folder of the set.
        split: name of its part.
        annotations: the annotation file, if it is not ROOT/annotations/instances_<split>.json; relative to ``root``.
        images: the folder of the images, if it is not ROOT/<split>; relative to ``root``. Sets with the same one are
            taken to be disjoint if the images they list are.
        classes: names of the classes to look at; all if left out.

    Raises DataError for a missing file or folder, besides what Detections raises.
    """

    def __init__(
        self,
        root: str,
        split: str = "train",
        annotations: str | None = None,
        images: str | None = None,
        classes: list[str] | None = None,
    ) -> None:
        base = existing_folder(root, "coco_folder")
        have = ", ".join(annotated_splits(base)) or "none"
        remedy = f"set `split` to one that is annotated ({have}), or `annotations` to the annotation file"
        named = annotations or f"annotations/{PREFIX}{split}{SUFFIX}"
        path = existing_file(base / Path(named).expanduser(), "coco_folder", remedy)
        if images is None:
            folder = split_folder(base, split, "coco_folder")
        else:
            remedy = "set `images` to the folder of the images"
            folder = part_folder("coco_folder", base, str(Path(images).expanduser()), remedy)
        self._shown = f" ({path.name})" if annotations else ""
        shares = images is not None
        super().__init__("coco_folder", split, base, path, folder, classes=classes, shares_folder=shares)

    def describe(self) -> str:
        return super().describe() + self._shown


def annotated_splits(base: Path) -> list[str]:
    """The parts of a set that have an annotation file of the usual name, training first."""
    found = [path.name[len(PREFIX) : -len(SUFFIX)] for path in base.glob(f"annotations/{PREFIX}*{SUFFIX}")]
    return sorted(found, key=lambda split: (not split.startswith("train"), split))
