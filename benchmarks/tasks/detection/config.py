"""The configuration of a transfer to object detection."""

import copy
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from mlomae.backbones.config import DenseConfig, DenseDataConfig, DenseTrainConfig
from mlomae.common.registry import Count


@dataclass
class DetectionDataConfig(DenseDataConfig):
    """``augment`` sees image, boxes and masks. ``pad_to``: sides of a batch are multiples of it."""

    pad_to: Count = 32


@dataclass
class DetectionTrainConfig(DenseTrainConfig):
    """``amp``: "bf16" is the backbone's and the neck's; boxes need float32 (bf16 has 8 bits: 4 pixels at 1,000)."""

    iterations: Count = 184_375
    decay: Literal["linear", "cosine", "steps"] = "steps"


@dataclass(kw_only=True)
class DetectionConfig(DenseConfig):
    """A whole transfer. ``model``: mmdet's Mask R-CNN without what follows from the data and the backbone
    (``backbone``, ``data_preprocessor``, the neck's input, number of classes). The strides of anchors and regions are
    those of the neck's maps if they are left out. ``overlay_score``: the lowest score of a detection that pictures
    show."""

    derived = frozenset({"backbone", "data_preprocessor", "init_cfg"})
    model: dict
    data: DetectionDataConfig
    train: DetectionTrainConfig = field(default_factory=DetectionTrainConfig)
    evaluator: Literal["pycocotools", "faster_coco_eval"] = "pycocotools"
    overlay_score: Annotated[float, "[0, 1]"] = 0.3

    def fitted(self, patch_size: int) -> "DetectionConfig":
        """With the strides of the neck's maps written out: all of them for anchors, and for regions those of the maps
        that the neck builds from the backbone's, without the coarser ones that it adds (Lin et al., FPN, CVPR 2017)."""
        model = copy.deepcopy(self.model)
        strides, built = _strides(model.get("neck"), patch_size)
        for key, found in {ANCHORS: strides, **dict.fromkeys(REGIONS, built)}.items():
            *sections, last = key.split(".")
            place: Any = model
            for section in sections:
                place = place.get(section) if isinstance(place, dict) else None
            if isinstance(place, dict) and place.get(last) is None and found:
                place[last] = found
        return replace(self, model=model)


ANCHORS = "rpn_head.anchor_generator.strides"
REGIONS = tuple(f"roi_head.{kind}_roi_extractor.featmap_strides" for kind in ("bbox", "mask"))


def _strides(neck: Any, patch_size: int) -> tuple[list[float], list[float]]:
    """Pixels between the cells of each map of a ``neck`` section, and of those built from the backbone's maps; both
    empty for a section that is not known."""
    necks = neck if isinstance(neck, list) and neck else [neck]
    try:
        pyramid = str(necks[0]["type"]).rpartition(".")[2]
        key = {"SimpleFeaturePyramid": "scales", "Feature2Pyramid": "rescales"}[pyramid]
        exact = [patch_size / scale for scale in necks[0].get(key, (4, 2, 1, 0.5))]
        levels = necks[-1].get("num_outs", 0) if key == "rescales" else len(exact) + necks[0].get("extra_level", True)
    except (KeyError, TypeError, ZeroDivisionError):  # mmdet will say what is wrong, if anything is
        return [], []
    if not exact:
        return [], []
    built = [int(stride) if stride == int(stride) else stride for stride in exact]
    return [*built, *(built[-1] * 2**i for i in range(1, levels - len(built) + 1))], built
