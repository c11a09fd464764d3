"""What a folder of images holds, and which of them are held out."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from photos import CLASSES, paint, paint_classes, paint_heap
from PIL import Image

from mlomae.common.errors import DataError
from mlomae.data import build_source, check_disjoint
from mlomae.data.found import look_into


def files_of(source) -> set[str]:
    return {str(Path(source.path(i)).resolve()) for i in range(len(source))}


def test_class_folders_hold_out_a_fifth_of_every_class_and_never_train_on_it(tmp_path):
    found = look_into(paint_classes(tmp_path / "pets"))
    assert (found.kind, found.classes, found.images, found.title) == ("classes", list(CLASSES), {"all": 30}, "pets")
    assert found.side == 40
    assert found.describe() == "30 images in 3 class folders (cat, dog, owl), 30 to 60 pixels a side"
    train, held_out = build_source(found.train), build_source(found.held_out)
    assert np.bincount(held_out.labels).tolist() == [2, 2, 2]
    assert np.bincount(train.labels).tolist() == [8, 8, 8]
    assert not files_of(train) & files_of(held_out)
    assert check_disjoint(train, held_out).counts() == {"compared": 6, "equal": 0, "near": 0}
    everything = build_source({**found.train, "part": "all"})
    with pytest.raises(DataError, match="would reach training"):
        check_disjoint(everything, held_out)


def test_the_held_out_part_keeps_copies_together_and_survives_new_names(tmp_path):
    root = paint_classes(tmp_path / "pets")
    before = build_source(look_into(root).held_out)
    contents = {Path(path).read_bytes() for path in files_of(before)}
    for path in sorted(files_of(before)):
        shutil.copy(path, Path(path).with_name(f"zz_copy_{Path(path).name}"))
    for path in root.rglob("0*.png"):
        path.rename(path.with_name(f"a_{path.name}"))
    found = look_into(root)
    train, held_out = build_source(found.train), build_source(found.held_out)
    assert {Path(path).read_bytes() for path in files_of(held_out)} == contents
    assert len(held_out) == 2 * len(contents)
    check_disjoint(train, held_out)


@pytest.mark.parametrize("kind", ["bmp", "webp"])
def test_the_held_out_part_keeps_equal_pixels_together_whatever_their_format(tmp_path, kind):
    root = paint_classes(tmp_path)
    for path in [*root.rglob("*.png")]:
        Image.open(path).save(
            path.with_name(f"other_{path.stem}.{kind}"), **{"lossless": True} if kind == "webp" else {}
        )
    found = look_into(root)
    train, held_out = build_source(found.train), build_source(found.held_out)
    assert np.bincount(held_out.labels).tolist() == [4, 4, 4], "a fifth of the different images, with their copies"
    assert len({held_out.pixel_digest(i) for i in range(12)}) == 6
    assert check_disjoint(train, held_out).equal == {}


def test_equal_pixels_in_two_classes_are_not_held_out(tmp_path):
    root = paint_classes(tmp_path)
    for chosen in map(Path, files_of(build_source(look_into(root).held_out))):
        other = next(root / name for name in CLASSES if name != chosen.parent.name)
        Image.open(chosen).save(other / f"{chosen.parent.name}_{chosen.stem}.bmp")
    found = look_into(root)
    assert check_disjoint(build_source(found.train), build_source(found.held_out)).equal == {}


def test_a_damaged_file_is_of_one_part_and_does_not_keep_the_folder_from_being_opened(tmp_path):
    root = paint_classes(tmp_path)
    for name in ("00.png", "01.png"):
        path = root / "cat" / name
        path.write_bytes(path.read_bytes()[:-200])
    parts = [files_of(build_source(part)) for part in (look_into(root).train, look_into(root).held_out)]
    assert sum(str(path).endswith(("cat/00.png", "cat/01.png")) for part in parts for path in part) == 2


def test_a_file_in_two_classes_is_not_held_out(tmp_path):
    root = paint_classes(tmp_path / "pets")
    chosen = next(iter(files_of(build_source(look_into(root).held_out))))
    other = next(root / name for name in CLASSES if name != Path(chosen).parent.name)
    shutil.copy(chosen, other / "zz.png")
    check_disjoint(*map(build_source, (look_into(root).train, look_into(root).held_out)))


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "TEST"), ("train", "valid")])
def test_folders_of_splits(tmp_path, names):
    for i, name in enumerate(names):
        paint_classes(tmp_path / "pets" / name, 4 - i, 1000 * i)
    found = look_into(tmp_path / "pets")
    assert (found.kind, found.images, found.title) == ("splits", {"train": 12, "held_out": 9}, "pets")
    assert (found.train["split"], found.held_out["split"]) == names
    assert found.describe().startswith("12 train + 9 held out images in 3 class folders")
    assert len(build_source(found.held_out)) == 9


def test_test_images_come_before_those_of_validation(tmp_path):
    for i, name in enumerate(("train", "val", "test")):
        paint_classes(tmp_path / name, 2, 1000 * i)
    assert look_into(tmp_path).held_out["split"] == "test"


def test_splits_must_have_the_same_classes(tmp_path):
    paint_classes(tmp_path / "train", 2)
    paint_classes(tmp_path / "val", 2, 1000)
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "lion")
    with pytest.raises(DataError, match=r"different class folders \(cat, lion\)"):
        look_into(tmp_path)


@pytest.mark.parametrize("inner", ["", "photos", "photos/2021", "train", "train/images"])
def test_a_heap_has_no_labels_wherever_it_lies(tmp_path, inner):
    paint_heap(tmp_path / inner, 5)
    found = look_into(tmp_path)
    assert (found.kind, found.classes, found.held_out, found.images) == ("heap", [], None, {"all": 5})
    assert found.describe() == "5 images without labels, 30 to 40 pixels a side"
    assert len(build_source(found.train)) == 5


def test_train_folder_alone_is_split(tmp_path):
    found = look_into(paint_classes(tmp_path / "pets" / "train").parent)
    assert (found.kind, found.title, found.images) == ("classes", "pets", {"all": 30})


def test_a_class_may_be_called_train(tmp_path):
    for i, name in enumerate(("train", "bus", "plane")):
        paint_heap(tmp_path / name, 3, 10 * i)
    assert look_into(tmp_path).classes == ["bus", "plane", "train"]


def test_without_labels_all_images_below_are_taken(tmp_path):
    paint_classes(tmp_path, 2)
    paint_heap(tmp_path, 3, 1000)
    found = look_into(tmp_path, labels=False)
    assert (found.kind, found.images) == ("heap", {"all": 9})
    assert len(build_source(found.train)) == 9


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "holds no image"),
        (["notes.txt"], "holds no image"),
        (["a.png", "cat/b.png"], "1 image beside the folders cat"),
        (["cat/a.png", "dog/b.png", "owl/notes.txt"], "owl holds no image"),
        (["a.jpg!"], "none of 1 image "),
        (["images/train/a.png", "annotations/train/a.png"], "give .*images"),
    ],
)
def test_what_is_refused_is_one_line(tmp_path, files, said):
    for i, name in enumerate(files):
        if name.endswith(".png"):
            paint(tmp_path / name, i)
        else:
            path = tmp_path / name.rstrip("!")
            path.parent.mkdir(exist_ok=True)
            path.write_text("no image")
    with pytest.raises(DataError, match=said) as error:
        look_into(tmp_path)
    assert "\n" not in str(error.value)
    assert ";" in str(error.value)  # a remedy


def test_a_missing_folder_and_a_file(tmp_path):
    paint(tmp_path / "a.png", 0)
    for name, said in (("nowhere", "does not exist"), ("a.png", "is a file")):
        with pytest.raises(DataError, match=said):
            look_into(tmp_path / name)


def test_an_exif_turned_photo_has_the_size_that_it_is_shown_in(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert look_into(tmp_path).sizes == [(80, 40)]


def test_the_part_of_a_class_without_two_images_is_refused(tmp_path):
    paint(tmp_path / "cat" / "a.png", 0)
    paint(tmp_path / "dog" / "b.png", 1)
    with pytest.raises(DataError, match="no class of"):
        build_source(look_into(tmp_path).held_out)
