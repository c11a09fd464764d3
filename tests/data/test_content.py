"""The digests of what a data set holds: equal for equal data wherever they lie, another for every change, named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_layouts import coco, edit, put
from PIL import Image
from scene_layouts import scenes

from mlomae.common.errors import ConfigError
from mlomae.data import build_detections, build_scenes, build_source
from mlomae.data.content import changes, describe_content
from mlomae.data.sets.own_images import folder_config

CLASSES = ("ant", "bee")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).save(path.with_suffix(".bmp"))  # of one size in bytes


def folders(root: Path) -> Path:
    for i in range(6):
        picture(root / "train" / CLASSES[i % 2] / f"{i}", i)
    return root


def described(root: Path, **options: Any) -> dict[str, Any]:
    return describe_content(build_source({"type": "imagefolder", "root": str(root), **options}))


def said(before: dict[str, Any], now: dict[str, Any]) -> str:
    return "; ".join(changes({"data": {"train": before}}, {"data": {"train": now}}))


def swap(a: Path, b: Path) -> None:
    aside = a.with_name("aside")
    for source, target in ((a, aside), (b, a), (aside, b)):
        source.rename(target)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "added": (lambda d: picture(d / "ant" / "9", 9), "data.train had 6 images and has 7"),
    "removed": (lambda d: (d / "ant" / "0.bmp").unlink(), "data.train had 6 images and has 5"),
    "replaced, of equal size": (lambda d: picture(d / "ant" / "0", 9), "has other images, as many as before (6)"),
    "classes swapped": (lambda d: swap(d / "ant", d / "bee"), "the same images with other labels or in another order"),
    "images swapped": (lambda d: swap(d / "ant/0.bmp", d / "ant/2.bmp"), "with other labels or in another order"),
    "moved to another class": (lambda d: (d / "ant/4.bmp").rename(d / "bee/6.bmp"), "with other labels or in another"),
    "class renamed": (lambda d: (d / "ant").rename(d / "ape"), "has the same images in classes of other names"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_change_of_a_folder_is_found_and_named(kind: str, tmp_path: Path) -> None:
    change, words = CHANGES[kind]
    before = described(folders(tmp_path / "pets"))
    source = build_source({"type": "imagefolder", "root": str(tmp_path / "pets")})
    change(tmp_path / "pets" / "train")
    assert words in said(before, described(tmp_path / "pets"))
    if kind == "replaced, of equal size":  # what the digests add to the fingerprint
        assert build_source({"type": "imagefolder", "root": str(tmp_path / "pets")}).fingerprint() == (
            source.fingerprint()
        )


def test_equal_data_are_equal_wherever_they_lie(tmp_path: Path) -> None:
    before = described(folders(tmp_path / "pets"))
    shutil.copytree(tmp_path / "pets", tmp_path / "elsewhere" / "pets")
    for file in (tmp_path / "elsewhere").rglob("*.bmp"):
        file.rename(file.with_name(f"image_{file.name}"))
    now = described(tmp_path / "elsewhere" / "pets")
    assert now == before
    assert said(before, now) == ""
    cached = described(tmp_path / "pets", cache=True)
    assert cached["content"] == before["content"], "of the files, also where the images are in memory"


def test_a_set_is_called_as_its_user_says_or_as_its_folder(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    assert described(root)["name"] == "pets"
    assert described(root / "train", split=".")["name"] == "pets", "not as its split"
    assert described(root, title="my pets")["name"] == "my pets"
    shutil.copytree(root / "train", root / "photos")
    assert build_source(folder_config(root / "photos")).title == "photos"
    assert describe_content(build_source({"type": "textures", "count": 8}))["name"] == "textures"
    for wrong in ("/data/pets", "a\nb", 3, "../x"):
        with pytest.raises(ConfigError, match="must be a name without slashes"):
            described(root, title=wrong)


def test_masks_and_boxes_are_part_of_it(tmp_path: Path) -> None:
    scenes(tmp_path / "scenes")
    config = {"type": "scene_folder", "root": str(tmp_path / "scenes"), "split": "training"}
    before = describe_content(build_scenes(config))
    path = next((tmp_path / "scenes" / "annotations" / "training").iterdir())
    values = np.asarray(Image.open(path)).copy()
    values[0, 0] = 1 + values[0, 0] % 5
    Image.fromarray(values).save(path)
    assert "the same images with other labels" in said(before, describe_content(build_scenes(config)))

    root = coco(tmp_path / "coco")
    boxes = {"type": "coco_folder", "root": str(root)}
    before = describe_content(build_detections(boxes))
    edit(root, put("annotations", 0, bbox=[0.0, 0.0, 5.0, 5.0]))
    assert "the same images with other labels" in said(before, describe_content(build_detections(boxes)))


def test_what_one_side_does_not_know_is_taken_to_be_the_same() -> None:
    known = {"images": 2, "classes": "c", "pixels": "p", "content": "x"}
    other = {"data": {"eval": {**known, "content": "y"}, "test": known}, "split_hash": "a"}
    assert changes({}, {"data": {"train": known}}) == changes({"data": {"train": known}}, other) == []
    assert changes({"split_hash": "b"}, other) == ["the images of data.train, or their split, are others"]
