"""`mlomae data check` and a run judge alike: what one refuses, the other refuses, in the same words."""

import shutil
from collections.abc import Callable
from pathlib import Path

import coco_layouts
import layouts
import numpy as np
import pytest
import scene_layouts
from coco_layouts import Content

from mlomae.backbones.config import DataConfig
from mlomae.backbones.run import open_pair
from mlomae.common.errors import DataError
from mlomae.data import Images, check_disjoint
from mlomae.data.registry import build_dataset
from mlomae.data.tools import check_data


def folders(root: Path, train: str = "ab", val: str = "ab") -> Path:
    for split, classes in (("train", train), ("val", val)):
        for name in classes:
            layouts.write_image(root / split / name / "1.jpg")
    return root


def with_copy(root: Path) -> Path:
    shutil.copy(folders(root) / "train" / "a" / "1.jpg", root / "val" / "a" / "2.jpg")
    return root


def with_link(root: Path) -> Path:
    (folders(root, val="") / "val").symlink_to(root / "train")
    return root


def damaged(root: Path) -> Path:
    (folders(root) / "train" / "b" / "1.jpg").write_bytes(b"")
    return root


def coco(root: Path, change: Callable[[Content], object] = lambda content: None) -> Path:
    for split in ("train", "val"):
        coco_layouts.coco(root, split)
    coco_layouts.edit(root, change, "val")
    return root


def corners(content: Content) -> None:
    for entry in content["annotations"]:
        entry["bbox"] = [40, 1, 9, 9]


def crowds(content: Content) -> None:
    for entry in content["annotations"]:
        entry["iscrowd"] = 1


def scenes(root: Path, classes: int) -> Path:
    return scene_layouts.scenes(root, classes=classes)


def black_and_white(root: Path) -> Path:
    scenes(root, 3)
    for i in range(2):
        scene_layouts.write_annotation(root, "validation", f"scene_{i}", np.full((12 + i, 17), 255, dtype=np.uint8))
    return root


CASES: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "folders": ("imagefolder", folders, ""),
    "one class": ("imagefolder", lambda root: folders(root, "a", "a"), "has the class 'a' alone; give two classes"),
    "other classes": (
        "imagefolder",
        lambda root: folders(root, "ab", "ac"),
        "classes of training and evaluation differ",
    ),
    "copies": ("imagefolder", with_copy, "1 of 3 evaluation images are in training"),
    "one folder": ("imagefolder", with_link, "both read"),
    "damaged": ("imagefolder", damaged, "train/b/1.jpg"),
    "coco": ("coco_folder", coco, ""),
    "corners": ("coco_folder", lambda root: coco(root, corners), "median IoU of 0.00; boxes are x, y, width, height"),
    "crowds": ("coco_folder", lambda root: coco(root, crowds), "is a crowd; annotate objects one by one"),
    "one category": (
        "coco_folder",
        lambda root: coco(root, lambda c: c["categories"].pop()),
        "not among the categories",
    ),
    "scenes": ("scene_folder", lambda root: scenes(root, 3), ""),
    "one class of pixels": (
        "scene_folder",
        lambda root: scenes(root, 1),
        "alone; annotate the background as a class too",
    ),
    "black and white": ("scene_folder", black_and_white, "have the value 255 but never 3"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_a_problem_ends_a_run(case: str, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    name, write, said = CASES[case]
    root = str(write(tmp_path))
    train, test = ("training", "validation") if name == "scene_folder" else ("train", "val")
    source = {"type": name, "root": root}
    text, status = check_data(name, root)
    problems = [line for line in text.splitlines() if line.startswith("problem: ")]
    assert (status, bool(problems)) == ((1, True) if said else (0, False)), text

    def run() -> None:
        data = DataConfig({**source, "split": train}, {**source, "split": test})
        check_disjoint(*open_pair(data, lambda values: build_dataset(values, Images)))

    if not said:
        run()
        return
    assert any(said in line for line in problems), text
    with pytest.raises(DataError) as error:
        run()
    assert said in str(error.value)
