"""ADE20K as the scene parsing challenge uses it: 150 classes, 20,210 training and 2,000 validation images.

Source: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017; ADEChallengeData2016.zip. The labels of its test
part are not public: ``validation`` is evaluated on. The full release, with thousands of object names in RGB pictures
beside the images, is another data set.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlomae.common.errors import DataError
from mlomae.data.paths import data_folder
from mlomae.data.published import check_split
from mlomae.data.scenes import Scenes, register_scenes
from mlomae.data.sets.ade20k_classes import ADE20K_CLASSES

REMEDY = "unpack ADEChallengeData2016.zip again (`mlomae data prepare ade20k ROOT` fetches it)"


def _full_release(base: Path) -> Path | None:
    """What is in ``base`` that only the full release has, if anything."""
    marks = [base / mark for mark in ("index_ade20k.pkl", "index_ade20k.mat", "images/ADE")]
    for mark in [*marks, *base.glob("ADE20K_20*")]:
        if mark.exists():
            return mark
    for kind in ("images", "annotations"):
        for here, _, files in os.walk(base / kind):
            for file in files:
                if file.endswith("_seg.png"):
                    return Path(here, file)
            if files:  # one folder with files tells: there are thousands
                break
    return None


@register_scenes("ade20k")
class ADE20K(Scenes):
    """ADE20K, 150 classes, decoded on each access.

    Args:
        root: ``ADEChallengeData2016`` or the folder that holds it.
        split: ``training`` or ``validation``.
        subset: accept a part of the published images.

    Raises ConfigError for an unknown split, DataError for the full release, besides what Scenes raises.
    """

    remedy = REMEDY
    value_remedy = f"the challenge's have 0 (not labelled) and 1 to 150, none above; {REMEDY}"

    def __init__(self, root: str, split: str = "training", subset: bool = False) -> None:
        check_split("ade20k", split)
        base = data_folder(root, "ade20k", ["ADEChallengeData2016"], ["images", "annotations"])
        mark = _full_release(base)
        if mark is not None:
            other = f"{base} is the full ADE20K release (it has {mark}), not the challenge's 150 classes"
            raise DataError(f"ade20k: {other}; {REMEDY}")
        super().__init__("ade20k", split, base, ADE20K_CLASSES, subset)
