"""`mlomae data check` and `mlomae data prepare` on sets in COCO's format."""

import shutil
import sys
from pathlib import Path

import pytest
from coco_layouts import Content, coco, edit, file_of, put

from mlomae.cli import main
from mlomae.data import PUBLISHED, Published
from mlomae.data.sets.coco import COCO_CATEGORIES

ALL = [{"id": id_, "name": name} for id_, name in COCO_CATEGORIES.items()]


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]):
    """Run ``mlomae data ...``: exit status, standard output, last line of standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["data", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, (captured.err.splitlines() or [""])[-1]

    return run


def published(root: Path) -> Path:
    for split in ("train2017", "val2017"):
        coco(root, split, categories=ALL)
    return root


def test_a_complete_set_is_ok(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools")
    monkeypatch.setitem(PUBLISHED, "coco", Published({"train": 4, "val": 4}, 80, evaluation="val"))
    status, out, err = data("check", "coco", published(tmp_path))
    assert (status, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[:6] == [
        f"coco at {tmp_path}",
        "train    4 images, 80 classes",
        "height 40-43, width 60 pixels (all decoded)",
        "6 objects, 0/1.5/3 per image, 3 of 80 categories present, 0 crowds",
        "areas: 100.0% small, 0.0% medium, 0.0% large (under 32², under 96² pixels, others; without crowds)",
        "masks: 3 polygons, 2 run lengths, 1 compressed run lengths; median IoU 1.000 with the boxes, "
        "annotated areas are 1.00 of the pixels (all decoded)",
    ]
    assert "repeated 0 of 4 val images are in train" in lines
    assert lines[-2:] == ["usual: train on train, evaluate on val", "ok"]
    status, out, _ = data("prepare", "coco", tmp_path)
    assert status == 0
    assert out.splitlines()[0] == f"coco is complete at {tmp_path}"


def test_objects_are_described(data, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")

    def change(content: Content) -> None:
        for k, area in enumerate([1023.9, 1024, 9215.9, 9216]):
            content["annotations"][k]["area"] = area
        content["annotations"][0]["id"] = 0
        content["annotations"][4].update(iscrowd=1, area=1)
        content["annotations"][5]["bbox"] = [70, 0, 8, 9]

    edit(coco(tmp_path), change)
    status, out, _ = data("check", "coco_folder", tmp_path)
    assert status == 0, out
    assert "5 objects, 0/1.5/2 per image, 2 of 2 categories present, 1 crowd\n" in out
    assert "areas: 25.0% small, 50.0% medium, 25.0% large" in out
    assert "objects left out: 1 outside the image" in out


def test_a_part_needs_subset(data, tmp_path: Path) -> None:
    published(tmp_path)
    status, out, _ = data("check", "coco", tmp_path)
    assert status == 1
    assert "problem: coco at" in out
    assert "4 of 118,287 train images" in out
    status, out, _ = data("check", "coco", tmp_path, "--subset")
    assert status == 0
    assert "of 5,000 val images; this is a subset" in out


def test_problems_of_one_part_leave_the_others_reported(data, tmp_path: Path) -> None:
    coco(coco(tmp_path), "val", images=3)
    edit(tmp_path, put("annotations", 0, category_id=1), "val")
    status, out, _ = data("check", "coco_folder", tmp_path)
    assert status == 1
    assert "train    4 images, 2 classes" in out
    assert out.count("problem: ") == 1
    assert "annotation 11 has category_id 1, which is not among the categories" in out


def test_masks_that_are_not_where_the_boxes_are_are_a_problem(data, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")

    def change(content: Content) -> None:
        for entry in content["annotations"]:
            entry["bbox"] = [40, 1, 9, 9]

    edit(coco(tmp_path), change)
    status, out, _ = data("check", "coco_folder", tmp_path)
    assert status == 1
    assert "problem: coco_folder: " in out
    assert "have a median IoU of 0.00" in out


def test_decode_looks_at_every_mask_and_image(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocotools")
    monkeypatch.setattr("mlomae.data.detections.SCANNED", 2)
    monkeypatch.setattr("mlomae.data.tools.SAMPLE", 1)
    image = coco(tmp_path) / "train" / "003.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    status, out, _ = data("check", "coco_folder", tmp_path)
    assert status == 1
    assert f"problem: train: cannot decode {image}" in out
    assert "(2 decoded, evenly spaced)" in out
    status, out, _ = data("check", "coco_folder", tmp_path, "--decode")
    assert status == 1
    assert "of the pixels (all decoded)" in out
    assert "problem: train: 1 of 4 images cannot be decoded" in out


def test_without_pycocotools_masks_are_not_decoded(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    status, out, _ = data("check", "coco_folder", coco(tmp_path))
    assert status == 0
    assert (
        "masks: 3 polygons, 2 run lengths, 1 compressed run lengths; none decoded (pycocotools is not installed; "
        in out
    )
    status, out, err = data("check", "coco_folder", tmp_path, "--decode")
    assert (status, out) == (2, "")
    assert err.startswith("error: pycocotools is not installed; ")
    assert err.endswith("[benchmarks]'")


def test_parts_come_training_first_and_an_image_in_two_is_a_problem(data, tmp_path: Path) -> None:
    for split in ("a", "train2020"):
        coco(tmp_path, split)
    shutil.copy(tmp_path / "train2020" / "001.jpg", tmp_path / "a" / "001.jpg")
    status, out, _ = data("check", "coco_folder", tmp_path)
    assert status == 1
    assert out.splitlines()[1].startswith("train2020")
    assert "problem: evaluation images would reach training: 1 of 4 evaluation images are in training " in out
    assert "(a/001.jpg = train2020/001.jpg)" in out


def test_options_are_those_of_a_config_and_may_name_a_file_for_each_split(data, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    for split in ("a", "b"):
        coco(tmp_path, split, images=3)
        (tmp_path / split).rename(tmp_path / f"photos_{split}")
        file_of(tmp_path, split).rename(tmp_path / f"{split}.json")
    (tmp_path / "photos_b" / "x.jpg").touch()
    pair = ("split=a,b", "annotations={split}.json", "images=photos_{split}")
    status, out, _ = data("check", "coco_folder", tmp_path, *pair)
    assert status == 0, out
    assert "repeated 0 of 3 b images are in a" in out
    assert out.count("left out: 1 not listed") == 1
    status, out, _ = data("check", "coco_folder", tmp_path, "annotations=a.json", "--decode", "images=photos_a")
    assert status == 0, out
    assert "classes" in out
    assert "2 classes" not in data("check", "coco_folder", tmp_path, *pair, "classes=['dog']")[1]
    status, _, err = data("check", "coco_folder", tmp_path, *pair, "classes=['cow']")
    assert status == 2
    assert "has no class 'cow'; choose from cat, dog" in err
    published(tmp_path)
    status, _, err = data("check", "coco", tmp_path, "annotations=a.json")
    assert status == 2
    assert "data set 'coco' has no option 'annotations'; it has root, split, subset, classes" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["coco"], "coco needs ROOT"),
        (["coco", "nowhere"], "does not exist"),
        (["coco_folder", "."], "has no split; expected"),
        (["coco_folder", "set", "--subset"], "--subset is for published data sets"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], said: str, data, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    coco(tmp_path / "set")
    status, out, err = data("check", *arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_coco_is_fetched_by_hand(data, tmp_path: Path) -> None:
    root = tmp_path / "out"
    status, out, err = data("prepare", "coco", root)
    assert (status, err) == (2, "")
    base = "http://images.cocodataset.org/"
    for words in (
        f"{base}annotations/annotations_trainval2017.zip (241 MB, md5 f4bbac642086de4f52a3fdda2de5fa2c)",
        f"-> {root}/annotations/",
        f"{base}zips/train2017.zip (18 GB, md5 cced6f7f71b7629ddf16f17bbcfab6b2) -> {root}/train2017/",
        f"{base}zips/val2017.zip (778 MB, md5 442b8da7639aecaf257c1dceb8ba8c80) -> {root}/val2017/",
    ):
        assert words in out
    assert out.splitlines()[-1] == f"then run: mlomae data check coco {root}"
    published(root)
    status, out, _ = data("prepare", "coco", root)
    assert status == 2  # a part of it
    assert "there are 4 of 118,287 train images" in out
    file_of(root, "train2017").unlink()
    assert "instances_train2017.json is missing" in data("prepare", "coco", root)[1]
    status, _, err = data("prepare", "coco_folder", root)
    assert status == 2
    assert "a layout, not a data set" in err
