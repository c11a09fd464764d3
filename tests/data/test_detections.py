"""Sets in COCO's format: what they give, what COCO's tools leave out, and every way in which a file can be wrong."""

import gc
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_layouts import BOXES, Content, boxes_of, coco, edit, file_of, masks_of, read, rectangle, segmentation, write
from PIL import Image

from mlomae.common.errors import DataError
from mlomae.data import Detections, Textures, build_detections, check_disjoint
from mlomae.data.write import write_coco


def build(root: Path, split: str = "train", **more: Any) -> Detections:
    return build_detections({"type": "coco_folder", "root": str(root), "split": split, **more})


def refusal(root: Path, **more: Any) -> str:
    with pytest.raises(DataError) as error:
        build(root, **more)
    assert "\n" not in str(error.value)
    assert "; " in str(error.value)
    return str(error.value)


def test_images_and_objects(tmp_path: Path) -> None:
    source = build(coco(tmp_path))
    assert (source.name, source.split, source.root, len(source)) == ("coco_folder", "train", str(tmp_path), 4)
    assert source.describe() == f"coco_folder train at {tmp_path}"
    assert source.annotation_file == file_of(tmp_path)
    assert (source.classes, source.categories) == (("cat", "dog"), (3, 7))
    assert source.image_ids.tolist() == [100, 99, 98, 97]
    assert not any(source.dropped.values())
    for i in range(4):
        size = (40 + i, 60)
        assert source.path(i) == str(tmp_path / "train" / f"{i:03d}.jpg")
        decoded = np.array(Image.open(source.path(i)))
        assert torch.equal(source.image(i), torch.from_numpy(decoded).permute(2, 0, 1))
        assert source.image_size(i) == size
        assert boxes_of(source, i).tolist() == [list(box) for box in BOXES[:i]]
        first = 11 + sum(range(i))
        assert source.annotations(i) == [
            {
                "id": first + k,
                "category": [1, 0, 1][k],
                "bbox": list(BOXES[k]),
                "area": BOXES[k][2] * BOXES[k][3],
                "iscrowd": 0,
                "segmentation": segmentation(BOXES[k], size, k),
            }
            for k in range(i)
        ]
    assert json.dumps(source.annotations(3))
    assert source.annotations(-1) == source.annotations(3)


def test_masks_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    source = build(coco(tmp_path))
    for i in range(4):
        expected = np.array([rectangle(box, (40 + i, 60)) for box in BOXES[:i]]).reshape(-1, 40 + i, 60)
        assert np.array_equal(masks_of(source, i).numpy(), expected)
        assert masks_of(source, i).dtype == torch.bool


def test_annotations_in_any_order_go_to_their_images(tmp_path: Path) -> None:
    before = build(coco(tmp_path))
    edit(tmp_path, lambda content: content["annotations"].sort(key=lambda entry: (-entry["image_id"] % 3, entry["id"])))
    after = build(tmp_path)
    assert [after.annotations(i) for i in range(4)] == [before.annotations(i) for i in range(4)]
    edit(tmp_path, lambda content: content["images"].reverse())
    reversed_ = build(tmp_path)
    assert [reversed_.annotations(3 - i) for i in range(4)] == [before.annotations(i) for i in range(4)]
    assert reversed_.image_ids.tolist() == [97, 98, 99, 100]


def test_objects_of_an_image_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    content = read(coco(tmp_path))
    entry = content["annotations"][0]
    content["annotations"] = [{**entry, "id": 500 - k, "image_id": 97 + k % 2} for k in range(300)]
    write(tmp_path, content)
    source = build(tmp_path)
    assert [shown["id"] for shown in source.annotations(3)] == list(range(500, 200, -2))
    assert [shown["id"] for shown in source.annotations(2)] == list(range(499, 200, -2))


def test_the_garbage_collector_is_left_as_it_was(tmp_path: Path) -> None:
    coco(tmp_path)
    assert gc.isenabled()
    build(tmp_path)
    assert gc.isenabled()
    gc.disable()
    try:
        build(tmp_path)
        assert not gc.isenabled()
    finally:
        gc.enable()
    file_of(tmp_path).write_text("{}")
    with pytest.raises(DataError):
        build(tmp_path)
    assert gc.isenabled()


def test_files_of_other_tools_may_have_more_and_leave_out_what_is_not_needed(tmp_path: Path) -> None:
    coco(tmp_path)
    nested = tmp_path / "train" / "a" / "é.jpg"
    nested.parent.mkdir()
    (tmp_path / "train" / "001.jpg").rename(nested)

    def change(content: Content) -> None:
        content["images"][1]["file_name"] = "./a/é.jpg"
        del content["info"]
        for entry in content["annotations"]:
            del entry["iscrowd"]
            entry["keypoints"] = [1, 2, 3]
        content["annotations"][0]["iscrowd"] = True

    edit(tmp_path, change)
    file_of(tmp_path).write_bytes(b"\xef\xbb\xbf" + file_of(tmp_path).read_bytes())
    source = build(tmp_path)
    assert source.path(1) == str(nested)
    assert [[entry["iscrowd"] for entry in source.annotations(i)] for i in range(4)] == [[], [1], [0, 0], [0, 0, 0]]


def test_travels_to_workers(tmp_path: Path) -> None:
    source = build(coco(tmp_path))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.annotations(3) == source.annotations(3)
    assert torch.equal(copy.image(2), source.image(2))


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.update(bbox=[4, 5, 20, 11]),
        lambda entry: entry.update(category_id=3),
        lambda entry: entry.update(area=201),
        lambda entry: entry.update(iscrowd=1),
        lambda entry: entry.update(segmentation=[[4, 5, 24, 5, 24, 15, 4, 15.5]]),
        lambda entry: entry.update(image_id=100),
    ],
)
def test_fingerprint_follows_content_not_place(change: Callable[[Content], None], tmp_path: Path) -> None:
    coco(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    before = build(tmp_path / "a").fingerprint()
    assert build(tmp_path / "b").fingerprint() == before
    edit(tmp_path / "b", lambda content: change(content["annotations"][0]))
    assert build(tmp_path / "b").fingerprint() != before


def test_disjointness_of_splits(tmp_path: Path) -> None:
    coco(coco(tmp_path), "val", images=3)
    training, validation = build(tmp_path), build(tmp_path, "val")
    check_disjoint(training, validation)
    with pytest.raises(DataError, match="both read"):
        check_disjoint(training, training)
    shutil.copytree(tmp_path / "train", tmp_path / "copy")
    shutil.copy(file_of(tmp_path), file_of(tmp_path, "copy"))
    with pytest.raises(DataError, match="4 of 4 evaluation images are in training"):
        check_disjoint(training, build(tmp_path, "copy"))
    check_disjoint(Textures(count=4), validation)


def test_parts_that_share_a_folder_are_disjoint_if_their_lists_are(tmp_path: Path) -> None:
    coco(tmp_path, images=8)
    content = read(tmp_path)
    for name, some in (("even", content["images"][::2]), ("odd", content["images"][1::2]), ("some", [])):
        ids = {entry["id"] for entry in some or content["images"][:3]}
        part = {
            "images": [entry for entry in content["images"] if entry["id"] in ids],
            "annotations": [entry for entry in content["annotations"] if entry["image_id"] in ids],
            "categories": content["categories"],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    even, odd, some = (
        build(tmp_path, name, annotations=f"{name}.json", images="train") for name in ("even", "odd", "some")
    )
    assert even.describe() == f"coco_folder even at {tmp_path} (even.json)"
    check_disjoint(even, odd)
    with pytest.raises(DataError, match="2 of 3 evaluation images are in training"):
        check_disjoint(even, some)
    for other in (build(tmp_path), even):
        with pytest.raises(DataError, match="both read"):
            check_disjoint(even, other)
    absolute = build(tmp_path, "x", annotations=str(tmp_path / "odd.json"), images=str(tmp_path / "train"))
    assert absolute.fingerprint() == odd.fingerprint()


def test_embedded_images_written_in_the_format_are_read(tmp_path: Path) -> None:
    textures = Textures("val", size=32, count=7, objects=(1, 4), mixed=True)
    source = build(write_coco(tmp_path / "coco", {"val": textures}), "val")
    assert (len(source), list(source.classes)) == (7, textures.classes)
    for i in range(7):
        masks, labels = textures.instances(i)
        assert torch.equal(source.image(i), textures.image(i))
        assert [entry["category"] for entry in source.annotations(i)] == labels.tolist()
        pytest.importorskip("pycocotools")
        assert torch.equal(masks_of(source, i), masks)
    found = source.check_annotations(decode_all=True)
    assert (found.objects, found.median_iou, found.median_area, found.empty) == (len(source.objects.ids), 1, 1, 0)


# --- objects left out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"bbox": [4, 5, 0, 10]}, "under a pixel wide or high"),
        ({"bbox": [4, 5, 20, 0]}, "under a pixel wide or high"),
        ({"bbox": [24, 5, -20, 10]}, "under a pixel wide or high"),
        ({"bbox": [4, 5, 20, 0.99]}, "under a pixel wide or high"),
        ({"bbox": [60, 5, 20, 10]}, "outside the image"),
        ({"bbox": [-20, 5, 20, 10]}, "outside the image"),
        ({"bbox": [4, 43, 20, 10]}, "outside the image"),
        ({"bbox": [4, -10, 20, 10]}, "outside the image"),
        ({"area": 0}, "without area"),
        ({"area": -1.5}, "without area"),
        ({"ignore": 1}, "flagged ignore"),
        ({"ignore": True, "area": 0}, "flagged ignore"),
        ({"segmentation": [[1, 2, 3, 4], []]}, "without a polygon of three corners"),
    ],
)
def test_objects_that_coco_s_tools_leave_out(entry: Content, reason: str, tmp_path: Path) -> None:
    edit(coco(tmp_path), lambda content: content["annotations"][4].update(entry))
    source = build(tmp_path)
    assert {k: v for k, v in source.dropped.items() if v} == {reason: 1}
    assert [entry["id"] for entry in source.annotations(3)] == [14, 16]
    assert [entry["segmentation"] for entry in source.annotations(3)] == [
        segmentation(BOXES[k], (43, 60), k) for k in (0, 2)
    ]


@pytest.mark.parametrize("box", [[59, 5, 20, 10], [-19, 5, 20, 10], [4, 5, 1, 1], [-5, -5, 900, 900]])
def test_boxes_that_are_kept(box: list[float], tmp_path: Path) -> None:
    edit(coco(tmp_path), lambda content: content["annotations"][4].update(bbox=box))
    source = build(tmp_path)
    assert not any(source.dropped.values())
    assert boxes_of(source, 3)[1].tolist() == box


def test_nothing_left(tmp_path: Path) -> None:
    def change(content: Content) -> None:
        for k, entry in enumerate(content["annotations"]):
            entry.update({"area": 0} if k else {"bbox": [1, 1, 0, 0]})

    edit(coco(tmp_path), change)
    assert "no object is left (1 under a pixel wide or high, 5 without area)" in refusal(tmp_path)
    edit(tmp_path, lambda content: content.update(annotations=[]))
    assert "lists no annotation" in refusal(tmp_path)


# --- masks against boxes --------------------------------------------------------------------------------------------


def test_corners_instead_of_widths_are_found_out(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")

    def corners(content: Content) -> None:
        for entry in content["annotations"]:
            x, y, width, height = entry["bbox"]
            entry["bbox"] = [x + 1, y + 1, x + width, y + height]

    edit(coco(tmp_path, images=8), corners)
    with pytest.raises(DataError, match=r"boxes around the masks have a median IoU of 0\.\d\d; boxes are x, y, width"):
        build(tmp_path).check_annotations()


def test_the_check_is_the_median_of_brute_force(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")

    def change(content: Content) -> None:
        for k, entry in enumerate(content["annotations"]):
            entry["bbox"][2] += k
            entry["area"] *= 1 + k / 10
        height, width = 43, 60
        content["annotations"][5]["segmentation"] = {"size": [height, width], "counts": [height * width]}
        content["annotations"].reverse()

    edit(coco(tmp_path), change)
    source = build(tmp_path)
    ious, areas = [], []
    for i in range(4):
        for entry, mask in zip(source.annotations(i), masks_of(source, i).numpy(), strict=True):
            stated = np.zeros((100, 100), dtype=bool)
            x, y, width, height = (int(v) for v in entry["bbox"])
            stated[y : y + height, x : x + width] = True
            around = np.zeros_like(stated)
            if mask.any():
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                around[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
                areas.append(entry["area"] / mask.sum())
            ious.append((stated & around).sum() / (stated | around).sum())
    found = source.check_annotations(decode_all=True)
    assert found.median_iou == pytest.approx(np.median(ious), abs=1e-12)
    assert found.median_area == pytest.approx(np.median(areas), abs=1e-12)
    assert (found.objects, found.empty) == (6, 1)
