"""Every way in which a file in COCO's format, or the folder beside it, can be wrong: one line that says what is."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coco_layouts import Content, coco, drop, edit, file_of, put, write_image

from mlomae.common.errors import DataError
from mlomae.data import Detections, build_detections


def build(root: Path, split: str = "train", **more: Any) -> Detections:
    return build_detections({"type": "coco_folder", "root": str(root), "split": split, **more})


def refusal(root: Path, **more: Any) -> str:
    with pytest.raises(DataError) as error:
        build(root, **more)
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("annotations", 2, category_id=9), "annotation 13 has category_id 9, which is not among the categories"),
        (put("annotations", 2, id=12), "two entries have the annotation id 12"),
        (put("images", 2, id=99), "two entries have the image id 99"),
        (put("images", 2, file_name="001.jpg"), "two entries have the image file_name '001.jpg'"),
        (put("images", 2, file_name="./001.jpg"), "two entries have the image file_name '001.jpg'"),
        (put("categories", 1, id=7), "two entries have the category id 7"),
        (put("categories", 1, name="dog"), "two entries have the category name 'dog'"),
        (
            put("images", 2, file_name="../other/002.jpg"),
            "image 98 has file_name '../other/002.jpg', which is not",
        ),
        (put("images", 2, file_name="/etc/002.jpg"), "image 98 has file_name '/etc/002.jpg', which is not a path"),
        (put("images", 2, file_name=""), "image 98 has file_name '.', which is not a path"),
        (put("images", 2, file_name=3), "image 98 has file_name 3"),
        (put("images", 2, height=0), "image 98 has height 0"),
        (put("images", 2, width="60 px"), "image 98 has width '60 px'"),
        (put("images", 2, id="98.5"), "image number 3 in its list has id '98.5'"),
        (put("images", 2, id=98.5), "image number 3 in its list has id 98.5"),
        (put("images", 2, id=-1), "image number 3 in its list has id -1"),
        (put("images", 2, id=2**70), "image number 3 in its list has id 1180591620717411303424"),
        (put("annotations", 2, id=True), "annotation number 3 in its list has id True"),
        (put("annotations", 2, image_id=None), "annotation 13 has image_id None"),
        (put("annotations", 2, iscrowd=2), "annotation 13 has iscrowd 2, neither 0 nor 1"),
        (put("annotations", 2, iscrowd="no"), "annotation 13 has iscrowd 'no'"),
        (put("annotations", 2, ignore="no"), "annotation 13 has ignore 'no'"),
        (put("annotations", 2, area="1"), "annotation 13 has area '1'"),
        (put("annotations", 2, area=float("nan")), "annotation 13 has area nan"),
        (put("annotations", 2, bbox=[1, 2, 3]), "annotation 13 has bbox [1, 2, 3], not x, y, width, height"),
        (put("annotations", 2, bbox=[1, 2, 3, "4"]), "annotation 13 has bbox [1, 2, 3, '4'], not x, y"),
        (put("annotations", 2, bbox=[1, 2, 3, float("inf")]), "annotation 13 has bbox [1, 2, 3, inf], not x, y"),
        (put("annotations", 2, bbox=[[1, 2], [3, 4], 5, 6]), "annotation 13 has bbox [[1, 2], [3, 4], 5, 6], not x, y"),
        (put("annotations", 2, bbox={}), "annotation 13 has bbox {}"),
        (
            put("annotations", 2, segmentation=[[1, 2, 3, 4, 5]]),
            "annotation 13 has a mask that has a polygon of 5 numbers",
        ),
        (put("annotations", 2, segmentation={"size": [42, 60], "counts": [2519]}), "do not add up to the 2,520 pixels"),
        (
            put("annotations", 2, segmentation={"size": [60, 42], "counts": [2520]}),
            "has size [60, 42], its image [42, 60]",
        ),
        (
            put("annotations", 2, segmentation={"size": [42, 60], "counts": "zz"}),
            "compressed run lengths that are damaged",
        ),
        (drop("annotations", 2, "bbox"), "annotation 13 has no bbox"),
        (drop("annotations", 2, "area"), "annotation 13 has no area"),
        (drop("annotations", 2, "category_id"), "annotation 13 has no category_id"),
        (drop("annotations", 2, "id"), "annotation number 3 in its list has no id"),
        (drop("images", 1, "file_name"), "image 99 has no file_name"),
        (drop("images", 1, "height"), "image 99 has no height"),
        (drop("categories", 0, "name"), "category 7 has no name"),
        (lambda content: content.pop("annotations"), "has no 'annotations'; a file in COCO's format has images"),
        (lambda content: content.pop("images"), "has no 'images'"),
        (lambda content: content.pop("categories"), "has no 'categories'"),
        (lambda content: content.update(images={}), "has no 'images'"),
        (lambda content: content["annotations"].append(3), "has no 'annotations'"),
        (lambda content: content.update(images=[]), "lists no image"),
        (lambda content: content.update(categories=[]), "lists no category"),
        (
            put("images", 2, width=61),
            "1 of 4 images read do not have the annotated height and width (first: 002.jpg has 42x60",
        ),
        (put("images", 0, height=60, width=40), "000.jpg has 40x60 pixels, annotated 60x40); correct height and width"),
    ],
)
def test_files_that_are_wrong(change: Callable[[Content], object], said: str, tmp_path: Path) -> None:
    edit(coco(tmp_path), change)
    if said.startswith("1 of 4 images"):  # its masks would be of another size: only polygons are not
        edit(tmp_path, lambda content: content.update(annotations=content["annotations"][:1]))
    message = refusal(tmp_path)
    assert said in message
    assert str(file_of(tmp_path)) in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b'{"images": [', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"images": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b"[]", "is a list, as files of results are"),
        (b"3", "is a single value, not COCO annotations"),
        (b"{}", "has no 'images'"),
    ],
)
def test_files_that_are_no_annotations(content: bytes, said: str, tmp_path: Path) -> None:
    file_of(coco(tmp_path)).write_bytes(content)
    assert said in refusal(tmp_path)


def test_missing_images_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    coco(tmp_path, images=9)
    for i in (1, 3, 4, 8):
        (tmp_path / "train" / f"{i:03d}.jpg").unlink()
    found = (
        f"4 of 9 images of instances_train.json are not in {tmp_path / 'train'} (001.jpg, 003.jpg, 004.jpg and 1 more)"
    )
    assert found in refusal(tmp_path)


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    (coco(tmp_path) / "train" / "002.jpg").write_text("no image")
    assert f"cannot decode {tmp_path / 'train' / '002.jpg'}" in refusal(tmp_path)


def test_sizes_of_a_sample_are_read_on_opening_and_all_on_request(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("pycocotools")
    monkeypatch.setattr("mlomae.data.detections.SCANNED", 2)
    write_image(coco(tmp_path) / "train" / "003.jpg", (44, 60))
    source = build(tmp_path)  # reads 0 and 2
    assert source.check_annotations().objects == 2
    with pytest.raises(DataError, match=r"1 of 4 images read do not have .* \(first: 003.jpg has 44x60 pixels"):
        source.check_annotations(decode_all=True)


def test_folders_and_files_that_are_missing(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "set `split` to one that is annotated (none)" in refusal(tmp_path)
    coco(coco(tmp_path), "val")
    message = refusal(tmp_path, split="test")
    assert f"{tmp_path / 'annotations' / 'instances_test.json'} is missing" in message
    assert "(train, val)" in message
    assert f"{tmp_path / 'x.json'} is missing" in refusal(tmp_path, annotations="x.json")
    assert f"{tmp_path / 'pictures'} is missing; set `images`" in refusal(tmp_path, images="pictures")
    shutil.rmtree(tmp_path / "train")
    assert f"{tmp_path / 'train'} is missing; set `images`" in refusal(tmp_path)
    file_of(tmp_path).unlink()
    file_of(tmp_path).mkdir()
    assert "instances_train.json is missing" in refusal(tmp_path)


# --- what other programs write, and is read all the same -------------------------------------------------------------


def each(kind: str, **changes: Callable[[Any], object]) -> Callable[[Content], None]:
    """Change these values of every entry of ``kind``."""

    def change(content: Content) -> None:
        for entry in content[kind]:
            entry |= {key: function(entry[key]) for key, function in changes.items()}

    return change


@pytest.mark.parametrize(
    "change",
    [
        each("images", id=float, height=float, width=str),
        each("annotations", id=str, image_id=float, category_id=str),
        each("categories", id=str),
    ],
)
def test_whole_floats_and_texts_of_digits_are_numbers(change: Callable[[Content], object], tmp_path: Path) -> None:
    before = build(coco(tmp_path))
    edit(tmp_path, change)
    after = build(tmp_path)
    assert after.fingerprint() == before.fingerprint()
    assert after.to_coco() == before.to_coco()


def test_numbers_are_names_of_categories(tmp_path: Path) -> None:
    edit(coco(tmp_path), lambda content: [c.update(name=i) for i, c in enumerate(content["categories"])])
    assert set(build(tmp_path).classes) == {"0", "1"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("annotations", 2, image_id=5), "of an image that is not listed"),
        (put("annotations", 2, segmentation=None), "without a mask"),
        (put("annotations", 2, segmentation=[]), "without a mask"),
        (drop("annotations", 2, "segmentation"), "without a mask"),
    ],
)
def test_objects_that_cannot_be_used_are_left_out_and_counted(
    change: Callable[[Content], object], reason: str, tmp_path: Path
) -> None:
    before = build(coco(tmp_path))
    edit(tmp_path, change)
    after = build(tmp_path)
    assert len(after.objects.ids) == len(before.objects.ids) - 1
    assert after.dropped[reason] == before.dropped[reason] + 1


def test_boxes_alone_are_said_once(tmp_path: Path) -> None:
    edit(coco(tmp_path), lambda content: [entry.pop("segmentation") for entry in content["annotations"]])
    message = refusal(tmp_path)
    assert "without a mask" in message
    assert "objects need masks" in message


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_file_names_are_found_in_another_spelling(form: Any, tmp_path: Path) -> None:
    coco(tmp_path)
    (tmp_path / "train" / "deep").mkdir()
    there = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "café.jpg")
    (tmp_path / "train" / "002.jpg").rename(tmp_path / "train" / "deep" / there)
    named = "deep\\" + unicodedata.normalize(form, "café.jpg")
    edit(tmp_path, put("images", 2, file_name=named))
    assert build(tmp_path).relative_path(2) == f"deep/{there}"


def test_absolute_names_in_the_folder_of_images_are_accepted(tmp_path: Path) -> None:
    edit(coco(tmp_path), put("images", 2, file_name=str(tmp_path / "train" / "002.jpg")))
    assert build(tmp_path).relative_path(2) == "002.jpg"


@pytest.mark.parametrize("name", ["things", "dog"])
def test_roboflow_exports_are_read_without_their_parent_category(name: str, tmp_path: Path) -> None:
    before = build(coco(tmp_path))
    parent = {"id": 0, "name": name, "supercategory": "none"}
    edit(tmp_path, lambda content: content["categories"].insert(0, parent))
    edit(tmp_path, lambda content: [c.update(supercategory=name) for c in content["categories"][1:]])
    file_of(tmp_path).rename(tmp_path / "train" / "_annotations.coco.json")
    after = build(tmp_path)
    assert after.classes == before.classes
    assert type(after).find_splits(tmp_path) == ["train"]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = file_of(coco(tmp_path))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(build(tmp_path)) == 4
