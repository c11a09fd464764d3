"""COCO 2017: published numbers, names and layout; and the real subset, against COCO's own tools."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_layouts import Content, coco, edit, masks_of, put, write

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import PUBLISHED, Detections, Published, build_detections, check_disjoint
from mlomae.data.sets.coco import COCO_CATEGORIES

ALL = [{"id": id_, "name": name} for id_, name in COCO_CATEGORIES.items()]


def published(root: Path, split: str = "train") -> Path:
    """Four images in COCO's own layout."""
    coco(root, f"{split}2017", categories=ALL)
    return root


def build_coco(root: Path, split: str = "train", **more: Any) -> Detections:
    return build_detections({"type": "coco", "root": str(root), "split": split, **more})


def test_numbers_and_names_are_the_published_ones() -> None:
    assert dict(PUBLISHED["coco"].counts) == {"train": 118_287, "val": 5_000}
    assert PUBLISHED["coco"].classes == len(COCO_CATEGORIES) == len(set(COCO_CATEGORIES.values())) == 80
    assert sorted(set(range(1, 91)) - COCO_CATEGORIES.keys()) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    known = {1: "person", 13: "stop sign", 44: "bottle", 67: "dining table", 90: "toothbrush"}
    assert {k: COCO_CATEGORIES[k] for k in known} == known
    assert list(COCO_CATEGORIES) == sorted(COCO_CATEGORIES)


@pytest.mark.parametrize("inside", ["", "coco"])
def test_coco_is_found_in_its_folder_or_one_above(inside: str, tmp_path: Path, monkeypatch) -> None:
    base = published(published(tmp_path / inside), "val")
    monkeypatch.setitem(PUBLISHED, "coco", Published({"train": 4, "val": 4}, 80))
    source = build_coco(tmp_path)
    assert (source.root, len(source), source.describe()) == (str(base), 4, f"coco train at {base}")
    assert source.categories == tuple(COCO_CATEGORIES)
    assert source.classes == tuple(COCO_CATEGORIES.values())
    check_disjoint(source, build_coco(tmp_path, "val"))


def test_a_part_needs_consent_and_more_is_never_accepted(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(DataError, match=r"there are 4 of 118,287 train images; .*subset=True \(--subset\)"):
        build_coco(published(tmp_path))
    assert build_coco(tmp_path, subset=True).describe().endswith("(subset: 4 of 118,287 images)")
    monkeypatch.setitem(PUBLISHED, "coco", Published({"train": 3}, 80))
    with pytest.raises(DataError, match="4 train images, published are only 3"):
        build_coco(tmp_path, subset=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: c["categories"].pop(),
            "differs from the published categories in 1: id 90 is 'no category', published is 'toothbrush'",
        ),
        (put("categories", 3, name="motorbike"), "id 4 is 'motorbike', published is 'motorcycle'"),
        (lambda c: c["categories"].append({"id": 91, "name": "hat"}), "id 91 is 'hat', published is 'none'"),
    ],
)
def test_categories_are_the_published_ones(change: Callable[[Content], object], said: str, tmp_path: Path) -> None:
    edit(published(tmp_path), change, "train2017")
    with pytest.raises(DataError, match=said):
        build_coco(tmp_path, subset=True)


def test_coco_that_is_not_there(tmp_path: Path) -> None:
    for missing in ("annotations/instances_train2017.json", "train2017"):
        with pytest.raises(DataError) as error:
            build_coco(tmp_path, subset=True)
        assert f"{tmp_path / missing} is missing" in str(error.value)
        assert "mlomae data prepare coco ROOT" in str(error.value)
        write(tmp_path, {}, "train2017")
    with pytest.raises(ConfigError, match=r"split 'test' is unknown or unlabelled; valid splits: train, val$"):
        build_coco(tmp_path, "test")


# --- the real subset ------------------------------------------------------------------------------------------------


def real(split: str, family: str) -> Detections:
    root = Path(os.environ.get("MLOMAE_DATA", ""), "coco_subset")
    if "MLOMAE_DATA" not in os.environ or not root.is_dir():
        pytest.skip("needs coco_subset below the folder that MLOMAE_DATA names")
    if family == "instances":
        return build_coco(root, split, subset=True)
    named = f"annotations/{family}_{split}2017.json"
    return build_detections({"type": "coco_folder", "root": str(root), "split": f"{split}2017", "annotations": named})


@pytest.mark.data
@pytest.mark.parametrize(
    ("family", "split", "images", "objects", "crowds", "present", "iou"),
    [
        ("instances", "train", 166, 1580, 15, 80, 0.979),
        ("instances", "val", 188, 1692, 20, 80, 0.979),
        ("panoptic_instances", "train", 100, 746, 6, 69, 1.0),
        ("panoptic_instances", "val", 100, 712, 5, 72, 1.0),
    ],
)
def test_the_real_subset_is_what_coco_s_tools_read(
    family: str, split: str, images: int, objects: int, crowds: int, present: int, iou: float
) -> None:
    source = real(split, family)
    of = source.objects
    assert (len(source), len(of.ids), int(of.crowds.sum()), len(np.unique(of.labels))) == (
        images,
        objects,
        crowds,
        present,
    )
    assert not any(source.dropped.values())
    found = source.check_annotations(decode_all=True)
    assert (found.objects, found.empty) == (objects, 0)
    assert found.median_iou == pytest.approx(iou, abs=5e-4)
    assert found.median_area == pytest.approx(1, abs=0.01)
    theirs = pytest.importorskip("pycocotools.coco").COCO(source.annotation_file)
    assert source.image_ids.tolist() == theirs.getImgIds()
    assert {id_: theirs.cats[id_]["name"] for id_ in source.categories} == COCO_CATEGORIES
    for i, id_ in enumerate(source.image_ids.tolist()):
        entries = theirs.loadAnns(theirs.getAnnIds(imgIds=id_))
        shown, masks = source.annotations(i), masks_of(source, i).numpy()
        assert len(shown) == len(entries) == len(masks)
        for ours, entry, mask in zip(shown, entries, masks, strict=True):
            assert source.categories[ours.pop("category")] == entry["category_id"]
            assert ours == {key: entry[key] for key in ours}
            assert np.array_equal(mask, theirs.annToMask(entry))


@pytest.mark.data
def test_the_real_parts_are_disjoint_and_the_families_are_not() -> None:
    check_disjoint(real("train", "instances"), real("val", "instances"))
    check_disjoint(real("train", "panoptic_instances"), real("val", "panoptic_instances"))
    with pytest.raises(DataError, match="both read"):
        check_disjoint(real("val", "instances"), real("val", "panoptic_instances"))
