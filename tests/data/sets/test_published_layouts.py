"""What is particular to each published layout: label order, files that are missing or contradict each other."""

import shutil
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from layouts import LAYOUTS, write_image
from scipy.io import savemat

from mlomae.common.errors import DataError
from mlomae.data import PUBLISHED, build_source, check_disjoint
from mlomae.data.sets.own_images import ImageFolder


@pytest.fixture(autouse=True)
def tiny_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _, _, published in LAYOUTS.values():
        monkeypatch.setitem(PUBLISHED, name, published)


def build(layout: str, root: Path, split: str = "train", **more: Any) -> Any:
    return build_source({"type": LAYOUTS[layout][0], "root": str(root), "split": split, **more})


def refusal(layout: str, root: Path, split: str = "train", **more: Any) -> str:
    with pytest.raises(DataError) as error:
        build(layout, root, split, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("cub", ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"]),
        ("cars", ["devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"]),
        ("flowers", ["imagelabels.mat", "setid.mat"]),
        ("inat", ["train2019.json", "val2019.json"]),
    ],
)
@pytest.mark.parametrize("subset", [False, True])
def test_missing_list_is_named_for_every_part(layout: str, files: list[str], subset: bool, tmp_path: Path) -> None:
    base = LAYOUTS[layout][1](tmp_path)
    for file in files:
        path = next(p for p in (base / file, *base.glob(f"*/{file}")) if p.is_file())
        content = path.read_bytes()
        path.unlink()
        for split in ("train", LAYOUTS[layout][2]):
            assert f"{path} is missing" in refusal(layout, tmp_path, split, subset=subset)
        if path.suffix in (".mat", ".json"):
            path.write_bytes(content[: len(content) // 2])
            assert str(path) in refusal(layout, tmp_path)
        path.write_bytes(content)
    build(layout, tmp_path)


# --- CUB-200-2011 ---------------------------------------------------------------------------------------------------


def test_cub_labels_and_names(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    train, test = (build("cub", tmp_path, split) for split in ("train", "test"))
    assert train.classes == ["001.Auk", "002.Owl"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.relative_path(3) == "002.Owl/Owl_0.jpg"
    assert test.relative_path(3) == "002.Owl/Owl_4.jpg"
    assert build("cub", tmp_path / "CUB_200_2011").fingerprint() == train.fingerprint()


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("images.txt", "2 001.Auk/Auk_1.jpg", "1 001.Auk/Auk_1.jpg", "images.txt, line 2"),
        ("images.txt", "2 001.Auk/Auk_1.jpg", "two 001.Auk/Auk_1.jpg", "images.txt, line 2"),
        ("images.txt", "4 001.Auk/Auk_3.jpg", "4 001.Auk/Auk_0.jpg", "Auk_0.jpg is listed in both train and test"),
        ("images.txt", "2 001.Auk/Auk_1.jpg", "2 001.Auk/Auk_0.jpg", "Auk_0.jpg is listed twice in train"),
        ("image_class_labels.txt", "3 1\n", "", "differ in image 3"),
        ("image_class_labels.txt", "3 1", "3 2", "into class '002.Owl', not its folder's"),
        ("image_class_labels.txt", "3 1", "3 7", "gives image 3 the invalid value '7'"),
        ("train_test_split.txt", "3 1", "3 x", "gives image 3 the invalid value 'x'"),
        ("train_test_split.txt", "10 0\n", "10 0\n11 1\n", "differ in image 11"),
        ("classes.txt", "2 002.Owl", "2 002.Emu", "not its folder's"),
    ],
)
def test_cub_tables_that_contradict_each_other(file: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    replace(tmp_path / "CUB_200_2011" / file, old, new)
    assert said in refusal("cub", tmp_path, subset=True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_cub_lists_saved_on_windows_and_unpacked_on_a_mac(encoding: str, tmp_path: Path) -> None:
    before = LAYOUTS["cub"][1](tmp_path)
    fingerprint = build("cub", before).fingerprint()
    for path in (tmp_path / "CUB_200_2011").glob("*.txt"):
        text = path.read_text().replace("/", "\\").replace("\n", "\r\n")
        path.write_bytes(text.encode(encoding))
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    for image in (tmp_path / "CUB_200_2011" / "images").rglob("*.jpg"):
        image.with_name(f"._{image.name}").write_bytes(b"\0\5\x16\7")
    assert build("cub", tmp_path).fingerprint() == fingerprint


def test_cub_class_without_test_images(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    split = tmp_path / "CUB_200_2011" / "train_test_split.txt"
    for number in (9, 10):
        replace(split, f"{number} 0", f"{number} 1")
    assert "8 train images, published are only 6" in refusal("cub", tmp_path)
    for file in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        path = split.with_name(file)
        path.write_text("\n".join(path.read_text().splitlines()[:8]))
    assert "test has no image of class 002.Owl" in refusal("cub", tmp_path, subset=True)


def test_cub_classes_without_images_are_dropped_from_a_subset(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    base = tmp_path / "CUB_200_2011"
    for file in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        (base / file).write_text("\n".join((base / file).read_text().splitlines()[5:]))
    source = build("cub", tmp_path, subset=True)
    assert source.classes == ["002.Owl"]
    assert source.labels.tolist() == [0, 0, 0]
    assert "1 of 2 classes" in refusal("cub", tmp_path)


def test_an_image_folder_over_the_same_images_is_refused_as_training_set(tmp_path: Path) -> None:
    layouts.cub(tmp_path)
    everything = ImageFolder(str(tmp_path / "CUB_200_2011"), split="images")
    with pytest.raises(DataError, match="both read"):
        check_disjoint(everything, build("cub", tmp_path, "test"))


# --- Stanford Cars --------------------------------------------------------------------------------------------------


def test_cars_labels_and_names(tmp_path: Path) -> None:
    layouts.cars(tmp_path)
    train = build("cars", tmp_path)
    assert train.classes == ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    assert train.labels.tolist() == [0, 1] * 3
    assert train.path(1).endswith("cars_train/00002.jpg")
    test = build("cars", tmp_path / "stanford_cars", "test")
    assert test.labels.tolist() == [0, 1] * 2
    assert test.path(1).endswith("cars_test/00002.jpg")


def test_cars_copies_with_doubled_folders_and_labels_in_the_devkit(tmp_path: Path) -> None:
    base = layouts.cars(tmp_path) / "stanford_cars"
    (base / "cars_train").rename(base / "inner")
    (base / "cars_train").mkdir()
    (base / "inner").rename(base / "cars_train" / "cars_train")
    name = "cars_test_annos_withlabels.mat"
    (base / name).rename(base / "devkit" / name)
    assert len(build("cars", tmp_path)) == 6
    assert len(build("cars", tmp_path, "test")) == 4


def test_cars_annotations_that_do_not_fit(tmp_path: Path) -> None:
    base = layouts.cars(tmp_path) / "stanford_cars"
    files = [f"{i:05d}.jpg" for i in range(1, 7)]
    path = base / "devkit" / "cars_train_annos.mat"
    layouts.write_annotations(path, files, [1, 2, 3, 1, 2, 1])
    assert "have images of class 3" in refusal("cars", tmp_path)
    layouts.write_annotations(path, files, [1, 1, 1, 1, 1, 1])
    assert "train has no image of class Acura RL Sedan 2012" in refusal("cars", tmp_path)
    layouts.write_annotations(path, files[:5] + files[:1], [1, 2] * 3)
    assert "00001.jpg is listed twice in train" in refusal("cars", tmp_path)
    (base / "cars_train" / "a").mkdir()
    for odd in ("../cars_test/00001.jpg", "a/../../cars_test/00001.jpg", "..\\cars_test\\00001.jpg"):
        layouts.write_annotations(path, [*files[:5], odd], [1, 2] * 3)
        assert f"1 of 6 listed train images are not in {base / 'cars_train'} ({odd})" in refusal("cars", tmp_path)
    savemat(path, {"annotations": np.arange(3)})
    assert "gives no file and class" in refusal("cars", tmp_path)
    savemat(path, {"annos": np.arange(3)})
    assert "no variable 'annotations'" in refusal("cars", tmp_path)


def test_cars_missing_images_and_test_folder_that_is_the_training_one(tmp_path: Path) -> None:
    base = layouts.cars(tmp_path) / "stanford_cars"
    shutil.rmtree(base / "cars_test")
    assert f"{base / 'cars_test'} is missing" in refusal("cars", tmp_path)
    (base / "cars_test").symlink_to(base / "cars_train")
    assert "train and test are one folder" in refusal("cars", tmp_path)


def test_cars_in_class_folders_must_have_the_same_classes(tmp_path: Path) -> None:
    layouts.cars_folders(tmp_path)
    (tmp_path / "test" / "Acura RL Sedan 2012").rename(tmp_path / "test" / "Acura TL Sedan 2012")
    assert "3 classes, published are only 2" in refusal("cars_folders", tmp_path)
    shutil.rmtree(tmp_path / "test" / "Acura TL Sedan 2012")
    assert "test has no image of class Acura RL Sedan 2012" in refusal("cars_folders", tmp_path, subset=True)
    shutil.rmtree(tmp_path / "test")
    assert f"{tmp_path / 'test'} is missing" in refusal("cars_folders", tmp_path)


# --- Flowers-102 ----------------------------------------------------------------------------------------------------


def test_flowers_labels_and_parts(tmp_path: Path) -> None:
    layouts.flowers(tmp_path)
    train = build("flowers", tmp_path)
    assert [train.relative_path(i) for i in (0, 1)] == ["image_00009.jpg", "image_00002.jpg"]
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    both = build("flowers", tmp_path / "flowers-102", "trainval")
    assert len(both) == 8
    assert both.split == "trainval"
    assert both.relative_path(6) == "image_00003.jpg"
    check_disjoint(both, build("flowers", tmp_path, "test"))
    with pytest.raises(DataError, match="both read"):
        check_disjoint(both, build("flowers", tmp_path, "val"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test": [5, 9]}, "image_00009.jpg is listed in both train and test"),
        ({"test": [5, 11]}, "names images without a label, which are 1 to 10"),
        ({"test": [0, 5]}, "names images without a label, which are 1 to 10"),
        ({"labels": [0, 2] * 5}, "have images of class 0"),
        ({"test": [5]}, "1 of 2 test images"),
        ({"test": []}, "test lists no image"),
        ({"test": [5.5, 8]}, "values that are not whole numbers"),
        ({"val": [5, 3], "test": [6, 8]}, "val has no image of class"),
    ],
)
def test_flowers_lists_that_do_not_fit(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    layouts.flowers(tmp_path)
    layouts.write_flowers_lists(tmp_path / "flowers-102", **{**layouts.FLOWERS, **changes})
    assert said in refusal("flowers", tmp_path)


# --- iNaturalist 2019 -----------------------------------------------------------------------------------------------


def test_inat_labels_follow_the_category_ids(tmp_path: Path) -> None:
    layouts.inat(tmp_path)
    val = build("inat", tmp_path, "val")
    assert val.classes == ["species 4", "species 9"]
    assert val.labels.tolist() == [1, 1, 0, 0]
    assert val.relative_path(0) == "Birds/9/val0.jpg"


def test_inat_lists_that_do_not_fit(tmp_path: Path) -> None:
    layouts.inat(tmp_path)
    rows = layouts.inat_rows("val")
    for changed, more, said in [
        ([*rows[:3], (rows[3][0], 5)], {}, "have images of class 5"),
        ([*rows[:3], (layouts.inat_rows("train")[0][0], 4)], {}, "is listed in both train and val"),
        ([*rows[:2], (rows[2][0], 9), (rows[3][0], 9)], {}, "val has no image of class species 4"),
        (rows, {"categories": (4, 9, 12)}, "differ in category 12"),
    ]:
        layouts.write_inat_json(tmp_path, "val", changed, **more)
        assert said in refusal("inat", tmp_path, "val")
    (tmp_path / "x.jpg").touch()
    layouts.write_inat_json(tmp_path, "val", [*rows[:3], ("..\\x.jpg", 4)])
    assert "1 of 4 listed val images are not in" in refusal("inat", tmp_path, "val")
    layouts.write_inat_json(tmp_path, "val", rows)
    replace(tmp_path / "val2019.json", '"image_id": 502', '"image_id": 501')
    assert "does not annotate each image once (image 502)" in refusal("inat", tmp_path)
    (tmp_path / "val2019.json").write_text('{"images": []}')
    assert "lists no image" in refusal("inat", tmp_path)


# --- ImageNet -------------------------------------------------------------------------------------------------------


def test_imagenet_classes_and_labels(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    train = build("imagenet", tmp_path)
    assert train.classes == ["n01440764", "n01443537"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_imagenet_folders_that_do_not_fit(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    write_image(tmp_path / "val" / "n01443537" / "n01440764_1.JPEG")
    assert "n01440764/n01440764_1.JPEG of train/ is in val/ too" in refusal("imagenet", tmp_path, subset=True)
    assert "5 val images, published are only 4" in refusal("imagenet", tmp_path, "val")
    (tmp_path / "val" / "n01443537").rename(tmp_path / "val" / "n01443538")
    assert "differ in class n01443537, n01443538" in refusal("imagenet", tmp_path)
    (tmp_path / "val" / "n01443538").rename(tmp_path / "val" / "goldfish")
    assert "folders that are not classes (goldfish)" in refusal("imagenet", tmp_path)
    shutil.rmtree(tmp_path / "val")
    assert f"{tmp_path / 'val'} is missing" in refusal("imagenet", tmp_path)
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    assert "are not in class folders" in refusal("imagenet", tmp_path, "val")
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val").symlink_to(tmp_path / "train")
    assert "train and val are one folder" in refusal("imagenet", tmp_path, "val")
