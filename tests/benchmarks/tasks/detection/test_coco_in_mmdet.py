"""mmdet's own loader and metric on the COCO layout of the embedded images: same pixels, same masks, full marks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_layouts import boxes_of

from mlomae.backbones.mmcv_ops import install
from mlomae.data import Textures, build_detections
from mlomae.data.write import write_coco

pytest.importorskip("mmdet")
install()
from mmdet.datasets import CocoDataset  # noqa: E402
from mmdet.evaluation import CocoMetric  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

CLASSES = 3
ODD_BOXES = [[4, 4, 0, 9], [4, 4, 9, 0.5], [48, 4, 9, 9], [-9, 4, 9, 9], [4, 60, 9, 9], [9, 9, -4, -4], [4, -7.5, 9, 7]]
"""Boxes of images of 48 pixels a side that both leave out."""


@pytest.fixture(scope="module")
def source() -> Textures:
    return Textures("val", size=48, count=9, classes=CLASSES, objects=(1, 3), mixed=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, source: Textures) -> Path:
    return write_coco(tmp_path_factory.mktemp("sets") / "coco", {"val": source})


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """Without it mmengine builds the transforms of mmcv that have the same names."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def test_loader_gives_the_same_pixels_and_masks(root: Path, source: Textures) -> None:
    pipeline: list[dict[str, Any]] = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
        {"type": "PackDetInputs", "meta_keys": ("img_id",)},
    ]
    data = CocoDataset(
        ann_file="annotations/instances_val.json",
        data_root=str(root),
        data_prefix={"img": "val/"},
        metainfo={"classes": tuple(source.classes)},
        pipeline=pipeline,
        filter_cfg={"filter_empty_gt": True},
    )
    assert len(data) == len(source)
    for item in data:
        i, found = item["data_samples"].img_id - 1, item["data_samples"].gt_instances
        assert torch.equal(item["inputs"], source.image(i).flip(0))  # mmcv reads blue first
        assert torch.equal(torch.from_numpy(found.masks.masks).bool(), source.instances(i)[0])
        assert torch.equal(found.labels, source.instances(i)[1])


def test_loader_leaves_out_the_objects_that_our_source_leaves_out(root: Path, tmp_path: Path) -> None:
    content = json.loads((root / "annotations" / "instances_val.json").read_text())
    entries = content["annotations"]
    odd: list[dict[str, Any]] = [{"bbox": box} for box in ODD_BOXES] + [{"area": 0}, {"ignore": 1}, {"iscrowd": 1}]
    content["annotations"] = [
        {**entry, **(odd[k // 2] if k % 2 and k < 2 * len(odd) else {}), "id": k + 1}
        for k, entry in enumerate(entries * 2)
    ]
    (tmp_path / "odd.json").write_text(json.dumps(content))
    ours = build_detections(
        {"type": "coco_folder", "root": str(root), "split": "val", "annotations": str(tmp_path / "odd.json")}
    )
    theirs = CocoDataset(
        ann_file=str(tmp_path / "odd.json"), data_prefix={"img": str(root / "val")}, metainfo={"classes": ours.classes}
    )
    assert len(theirs) == len(ours)
    assert sum(ours.dropped.values()) == len(ODD_BOXES) + 2 < len(content["annotations"]) // 2
    for i in range(len(ours)):
        info, shown = theirs.get_data_info(i), ours.annotations(i)
        assert (info["img_id"], info["img_path"]) == (ours.image_ids[i], ours.path(i))
        boxes = [[x, y, x + width, y + height] for x, y, width, height in boxes_of(ours, i)]
        assert [instance["bbox"] for instance in info["instances"]] == boxes
        for instance, entry in zip(info["instances"], shown, strict=True):
            assert instance["bbox_label"] == entry["category"]
            assert instance["ignore_flag"] == entry["iscrowd"]
            assert instance["mask"] == entry["segmentation"]


def test_metric_of_perfect_predictions(root: Path, source: Textures) -> None:
    metric = CocoMetric(str(root / "annotations" / "instances_val.json"), ["bbox", "segm"])
    metric.dataset_meta = {"classes": tuple(source.classes)}
    for i in range(len(source)):
        masks, labels = source.instances(i)
        spans = [mask.nonzero() for mask in masks]
        corners = [[*at.amin(dim=0).flip(0), *(at.amax(dim=0) + 1).flip(0)] for at in spans]
        found = {
            "bboxes": torch.tensor(corners, dtype=torch.float32),
            "scores": torch.ones(len(labels)),
            "labels": labels,
            "masks": masks,
        }
        metric.process({}, [{"img_id": i + 1, "ori_shape": (48, 48), "pred_instances": found}])
    scores = metric.evaluate(len(source))
    assert scores["coco/bbox_mAP"] == scores["coco/segm_mAP"] == 1.0
