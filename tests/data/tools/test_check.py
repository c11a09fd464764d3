"""`mlomae data check`: the report on good sets, every kind of problem, and the exit status."""

import shutil
from pathlib import Path

import layouts
import pytest
from layouts import LAYOUTS, write_image

from mlomae.cli import main
from mlomae.common.errors import ConfigError, DataError
from mlomae.data import PUBLISHED, Published, build_source, list_datasets
from mlomae.data.tools import check_data


@pytest.fixture(autouse=True)
def tiny_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _, _, published in LAYOUTS.values():
        monkeypatch.setitem(PUBLISHED, name, published)


def check(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["data", "check", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_complete_set_is_ok(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, write, evaluation, published = LAYOUTS[layout]
    write(tmp_path)
    status, out, err = check(name, tmp_path, capsys=capsys)
    assert status == 0, out
    assert err == ""
    lines = out.splitlines()
    assert lines[-1] == "ok"
    assert "train    6 images, 2 classes, 3/3/3 images per class" in lines
    assert sum("height 16, width 20 pixels (all decoded)" in line for line in lines) == len(published.counts)
    count = published.counts[evaluation]
    assert f"repeated 0 of {count} {evaluation} images are in train" in lines
    assert f"usual: train on {published.training}, evaluate on {evaluation}" in lines


def test_sizes_of_a_sample_or_of_all(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mlomae.data.tools.SAMPLE", 2)
    layouts.cub(tmp_path)
    write_image(tmp_path / "CUB_200_2011" / "images" / "002.Owl" / "Owl_2.jpg", size=(8, 64))
    assert "height 16, width 20 pixels (2 decoded, evenly spaced)" in check("cub200", tmp_path, capsys=capsys)[1]
    assert "height 8-16, width 20-64 pixels (all decoded)" in check("cub200", tmp_path, "--decode", capsys=capsys)[1]


def test_images_that_cannot_be_decoded(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.cub(tmp_path)
    broken = tmp_path / "CUB_200_2011" / "images" / "001.Auk" / "Auk_1.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    status, out, _ = check("cub200", tmp_path, capsys=capsys)
    assert status == 1
    assert out.count("problem: ") == 1
    assert f"problem: train: 1 of 6 images cannot be decoded ({broken}" in out
    monkeypatch.setattr("mlomae.data.tools.SAMPLE", 1)
    status, out, _ = check("cub200", tmp_path, capsys=capsys)  # measures a sample, but compares all images
    assert status == 1
    assert f"problem: train: cannot decode {broken}" in out
    assert check("cub200", tmp_path, "--decode", capsys=capsys)[0] == 1


def test_missing_images_are_one_problem_and_other_parts_are_still_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.inat(tmp_path)
    (tmp_path / "train_val2019" / "Birds" / "4" / "val1.jpg").unlink()
    status, out, _ = check("inat2019", tmp_path, capsys=capsys)
    assert status == 1
    assert "train    6 images" in out
    assert "problem: inat2019: 1 of 4 listed val images are not in" in out
    assert "(train_val2019/Birds/4/val1.jpg)" in out


def test_what_is_wrong_with_the_whole_set_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.flowers(tmp_path)
    (tmp_path / "flowers-102" / "setid.mat").unlink()
    status, out, _ = check("flowers102", tmp_path, capsys=capsys)
    assert status == 1
    assert out.count("problem: ") == 1
    assert "setid.mat is missing" in out


@pytest.mark.parametrize(("images", "status"), [(99, 0), (2, 1)])
def test_repeated_images_are_named_and_one_per_cent_is_tolerated(
    images: int, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("train/cat", "train/dog", "val/cat"):
        write_image(tmp_path / folder / "a.jpg", size=(8, 8))
    for i in range(1, images):
        write_image(tmp_path / "val" / "dog" / f"{i:03d}.jpg", size=(8, 9))
    shutil.copy(tmp_path / "train" / "cat" / "a.jpg", tmp_path / "val" / "dog" / "b.jpg")
    found, out, _ = check("imagefolder", tmp_path, capsys=capsys)
    assert found == status
    named = f"1 of {images + 1} val images are in train (val/dog/b.jpg = train/cat/a.jpg)"
    assert f"repeated {named}" in out
    assert ("problem: evaluation images would reach training: 1 of 3" in out) == bool(status)


def test_a_part_needs_subset_and_is_said_to_be_one(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts.cub(tmp_path)
    monkeypatch.setitem(PUBLISHED, "cub200", Published({"train": 5994, "test": 5794}, 200))
    status, out, _ = check("cub200", tmp_path, capsys=capsys)
    assert status == 1
    assert "problem: cub200 at" in out
    assert "--subset" in out
    assert check("cub200", tmp_path, "subset=true", capsys=capsys)[0] == 0
    status, out, _ = check("cub200", tmp_path, "--subset", capsys=capsys)
    assert status == 0
    assert "of 5,994 train images, 2 of 200 classes; this is a subset" in out


# --- sources that are not checked on load ---------------------------------------------------------------------------


def test_cifar_is_compared_with_its_published_numbers(
    tmp_path: Path, write_cifar, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_cifar(tmp_path)
    status, out, _ = check("cifar10", root, capsys=capsys)
    assert status == 0  # as a run accepts it
    assert "note: cifar10 at" in out
    assert "there are 60 of 50,000 train images; this is a subset" in out
    monkeypatch.setitem(PUBLISHED, "cifar10", Published({"train": 60, "test": 12}, 10))
    assert check("cifar10", root, capsys=capsys)[0] == 0
    (root / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert "lacks data_batch_3" in check("cifar10", root, capsys=capsys)[1]
    assert check("cifar10", root, "--subset", capsys=capsys)[0] == 0


def test_tiny_imagenet_and_cifar100(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("n01", "n02"):
        write_image(tmp_path / "train" / name / "images" / "0.JPEG")
    write_image(tmp_path / "val" / "images" / "v.JPEG")
    (tmp_path / "wnids.txt").write_text("n01\nn02\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("v.JPEG\tn02\t0\t0\t1\t1\n")
    status, out, _ = check("tiny_imagenet", tmp_path, capsys=capsys)
    assert status == 0
    assert "val      1 image, 2 classes, 0/0.5/1 images per class" in out
    assert "2 of 200 classes; this is a subset" in out
    status, out, _ = check("cifar100", tmp_path, capsys=capsys)
    assert status == 1
    assert "problem: " in out


def test_imagefolder_reads_the_folders_it_finds_and_wants_the_same_classes(
    tmp_path: Path, write_tree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(write_tree(tmp_path, "train"), "eval", seed=1)
    (root / "notes").mkdir()
    status, out, _ = check("imagefolder", root, capsys=capsys)
    assert status == 0
    assert out.splitlines()[1].startswith("train ")
    (root / "eval" / "dog").rename(root / "eval" / "doge")
    status, out, _ = check("imagefolder", root, capsys=capsys)
    assert status == 1
    assert "problem: the classes of training and evaluation differ: only imagefolder train at" in out
    for folder in ("train/dog", "eval/doge"):
        shutil.rmtree(root / folder)
    status, out, _ = check("imagefolder", root, capsys=capsys)
    assert status == 1
    assert "has the class 'cat' alone; give two classes or more, or pretrain with data.eval=None" in out


def test_class_folders_without_a_split_are_one_and_what_is_left_out_is_said(
    tmp_path: Path, write_tree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path) / "train"
    (root / "cat" / "notes.txt").touch()
    (root / "dog" / ".ipynb_checkpoints").mkdir()
    (root / "labels.csv").touch()
    status, out, _ = check("imagefolder", root, capsys=capsys)
    assert status == 0
    assert ".        12 images, 2 classes" in out
    assert "left out: 1 .csv, 1 .txt, 1 hidden" in out
    config = {"type": "imagefolder", "root": str(root)}
    with pytest.raises(DataError, match=r"no folder 'train' in .*\(cat, dog\) hold images .*set `split` to '\.'"):
        build_source(config)
    assert len(build_source({**config, "split": "."})) == 12


def test_textures(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("mlomae.data.textures.source.DEFAULT_COUNTS", {"train": 16, "test": 8})
    status, out, _ = check("textures", capsys=capsys)
    assert status == 0
    assert "textures (embedded)" in out
    assert "repeated 0 of 8 test images are in train" in out
    status, out, _ = check("textures", "split=test", "size=16", "count=5", capsys=capsys)
    assert status == 0
    assert "height 16, width 16 pixels" in out
    assert "train" not in out


# --- wrong input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cub20", "x"], "unknown data set 'cub20'; choose one of ade20k, camvid, cifar10, "),
        (["cub200"], "cub200 needs ROOT"),
        (["cub200", "nowhere"], "does not exist"),
        (["textures", "x"], "leave ROOT out"),
        (["textures", "--subset"], "--subset is for published data sets"),
        (["imagefolder", "."], "has no split"),
        (
            ["imagefolder", ".", "split=a", "cash=True"],
            "has no option 'cash' (did you mean 'cache'?); it has root, split, cache",
        ),
        (
            ["imagefolder", ".", "cache=yes", "split=a"],
            "option 'cache' of data set 'imagefolder' must be bool; got 'yes'",
        ),
        (["imagefolder", ".", "--decode", "train"], "`mlomae data check` takes KEY=VALUE; got 'train'"),
    ],
)
def test_wrong_input_is_one_line(arguments, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = check(*arguments, capsys=capsys)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err


def test_every_source_can_be_checked(tmp_path: Path) -> None:
    for folder in ("train/class", "images/training", "annotations"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("annotations/instances_train.json", "train/0.tar"):
        (tmp_path / file).touch()
    with pytest.raises(ConfigError, match=r"on_scenes is made of other data sets \(objects, scenes\)"):
        check_data("on_scenes", str(tmp_path))
    with pytest.raises(ConfigError, match=r"part is made of other data sets \(of\)"):
        check_data("part", str(tmp_path))
    for name in set(list_datasets()) - {"textures", "on_scenes", "part"}:
        text, status = check_data(name, str(tmp_path))
        assert status == 1
        assert "problem: " in text
