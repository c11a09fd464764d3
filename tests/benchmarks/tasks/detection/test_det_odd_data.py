"""Annotation files as other tools write them, and wrong ones, through the whole chain: as COCO's tools, or one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import det_runs
import numpy as np
import pytest
import torch
from coco_layouts import boxes_of, masks_of
from det_runs import main, run_transfer
from mmengine.structures import InstanceData
from pycocotools import mask as tools
from run_samples import one_line

from benchmarks.tasks.detection.data import CocoImages
from benchmarks.tasks.detection.metric import DetectionMetric, evaluate_detections
from mlomae.data import Detections, build_detections

Content = dict[str, Any]
EMPTY, CROWDS, FLAT, CUT = 1, 2, 3, 4
"""Images without objects, with crowds alone, with a box without area alone, with a polygon of two corners first."""


def rectangle(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def odd(content: Content) -> None:
    """Polygons, run lengths and compressed ones in turn; crowds, flags left out, images without objects."""
    content.pop("info")
    content.pop("licenses")
    images = [image["id"] for image in content["images"]]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != images[EMPTY]]
    first: dict[int, Content] = {}
    for k, a in enumerate(content["annotations"]):
        first.setdefault(a["image_id"], a)
        if k % 3 == 0:
            a["segmentation"] = [rectangle(a["bbox"])]
            a["area"] = a["bbox"][2] * a["bbox"][3]
        elif k % 3 == 1:
            runs = tools.frPyObjects(a["segmentation"], 32, 32)
            a["segmentation"] = {**runs, "counts": runs["counts"].decode()}
        if a["image_id"] == images[CROWDS]:
            a["iscrowd"] = 1
        elif a["image_id"] == images[FLAT]:
            a["bbox"][2] = 0
        elif k % 2:
            del a["iscrowd"]
    entry = first[images[CUT]]
    entry["segmentation"] = [[1, 2, 3, 4], [], rectangle(entry["bbox"])]
    crowd = {**first[images[0]], "id": 1000, "iscrowd": 1, "bbox": [0, 0, 32, 32], "area": 1024}
    content["annotations"].append({**crowd, "segmentation": [rectangle([0, 0, 32, 32])]})


@pytest.fixture(scope="module")
def root(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The categories of the two parts are in different orders."""
    copied = Path(shutil.copytree(coco, tmp_path_factory.mktemp("odd") / "coco"))
    for split in ("train", "val"):
        det_runs.edit(copied, split, odd)
    det_runs.edit(copied, "train", lambda content: content["categories"].reverse())
    return copied


def opened(root: Path, split: str) -> Detections:
    return build_detections({"type": "coco_folder", "root": str(root), "split": split})


@pytest.mark.parametrize("split", ["train", "val"])
def test_training_sees_what_the_source_shows(split: str, root: Path) -> None:
    source = opened(root, split)
    images = CocoImages(source, [], train=True)
    shown = [i for i in range(len(source)) if any(not a["iscrowd"] for a in source.annotations(i))]
    assert {EMPTY, CROWDS, FLAT}.isdisjoint(shown)
    assert len(shown) == len(images) == len(source) - 3
    for i, item in zip(shown, (images[k] for k in range(len(images))), strict=True):
        sample = item["data_samples"]
        assert sample.img_id == source.image_ids[i]
        assert torch.equal(item["inputs"], source.image(i).flip(0))
        for kind, crowd in ((sample.gt_instances, 0), (sample.ignored_instances, 1)):
            entries = [k for k, a in enumerate(source.annotations(i)) if a["iscrowd"] == crowd]
            assert kind.labels.tolist() == [source.annotations(i)[k]["category"] for k in entries]
            boxes = boxes_of(source, i)[entries]
            assert np.array_equal(kind.bboxes.tensor.numpy(), np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))
            assert np.array_equal(kind.masks.masks.astype(bool), masks_of(source, i)[entries].numpy())


def truth_as_detected(images: CocoImages) -> list[Any]:
    samples = [images[k]["data_samples"] for k in range(len(images))]
    for sample in samples:
        true = sample.gt_instances
        masks = torch.from_numpy(true.masks.masks).bool()
        found = {"bboxes": true.bboxes.tensor, "labels": true.labels, "scores": torch.ones(len(true))}
        sample.pred_instances = InstanceData(**found, masks=masks)
    return samples


def test_labels_are_the_same_categories_whatever_their_order_in_a_file(coco: Path, tmp_path: Path) -> None:
    """What one part was trained on is scored by the category ids of the other; annotation ids may count from 0."""
    copied = Path(shutil.copytree(coco, tmp_path / "coco"))
    det_runs.edit(copied, "val", lambda content: content["categories"].reverse())
    det_runs.edit(copied, "val", lambda content: [a.update(id=a["id"] - 1) for a in content["annotations"]])
    assert opened(copied, "val").categories == opened(coco, "train").categories
    assert opened(copied, "val").objects.ids.min() == 0
    metric = DetectionMetric(opened(copied, "val"))
    metric.process(truth_as_detected(CocoImages(opened(copied, "val"), [], train=True)))
    assert metric.evaluate(det_runs.COUNTS["val"])["mask_AP"] == pytest.approx(100.0)


def test_boxes_without_area_are_missed_and_crowds_are_not(root: Path) -> None:
    """As pycocotools has it: of n objects of a class the truth finds all but those without area."""
    source = opened(root, "val")
    metric = DetectionMetric(source)
    metric.process(truth_as_detected(CocoImages(source, [], train=True)))
    found = metric.evaluate(3)
    content = json.loads(det_runs.annotation_file(root, "val").read_text())
    counted = [a for a in content["annotations"] if not a.get("iscrowd")]
    for kind in ("box", "mask"):
        recall = []
        for category in {a["category_id"] for a in counted}:
            mine = [a for a in counted if a["category_id"] == category]
            recall.append(sum(a["bbox"][2] > 0 for a in mine) / len(mine))
        assert found[f"{kind}_AR100"] == pytest.approx(100 * np.mean(recall), abs=1e-9)
        assert found[f"{kind}_AR100"] < 100


def test_a_crop_that_leaves_a_crowd_alone_is_drawn_again(coco: Path, tmp_path: Path) -> None:
    def change(content: Content) -> None:
        some = content["annotations"][0]
        content["annotations"] = [
            {**some, "id": 1 + crowd, "iscrowd": crowd, "bbox": box, "area": box[2] * 32, "segmentation": [mask]}
            for crowd, box in enumerate(([0, 0, 8, 32], [8, 0, 24, 32]))
            for mask in [rectangle([float(v) for v in box])]
        ]

    copied = Path(shutil.copytree(coco, tmp_path / "coco"))
    det_runs.edit(copied, "train", change)
    crop = {"type": "RandomCrop", "crop_type": "absolute", "crop_size": [16, 16], "recompute_bbox": True}
    images = CocoImages(opened(copied, "train"), [crop], train=True)
    samples = [images[epoch, 0]["data_samples"] for epoch in range(12)]
    assert {len(sample.gt_instances) for sample in samples} == {1}


def test_a_transfer_on_such_files_is_scored_as_pycocotools_does(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = det_runs.write_config(tmp_path / "config.py", root, train__iterations=4)
    assert main([str(config), "--weights", "random", "--work-dir", str(tmp_path / "run")]) == 0
    assert "box_AP" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["metrics"]["n"] == det_runs.COUNTS["val"], "images without objects are evaluated too"
    content = json.loads(det_runs.annotation_file(root, "val").read_text())
    for a in content["annotations"]:  # pycocotools stops at these, see `metric`
        a["iscrowd"] = a.get("iscrowd", 0)
        if isinstance(a["segmentation"], list):
            a["segmentation"] = [corners for corners in a["segmentation"] if len(corners) > 4]
    (tmp_path / "filled.json").write_text(json.dumps(content))
    found = det_runs.detections(tmp_path / "run")
    for kind in ("box", "mask"):
        expected = det_runs.coco_numbers(tmp_path / "filled.json", found, kind)
        for name in ("AP", "AP50", "AR100"):
            assert record["metrics"][f"{kind}_{name}"] == 100 * expected[name]


def unknown_category(content: Content) -> None:
    content["annotations"][0]["category_id"] = 99


def no_area(content: Content) -> None:
    for a in content["annotations"]:
        a["bbox"][3] = 0


def crowds_alone(content: Content) -> None:
    for a in content["annotations"]:
        a["iscrowd"] = 1


def runs_too_short(content: Content) -> None:
    content["annotations"][0]["segmentation"] = {"size": [32, 32], "counts": [5, 6]}


REFUSED: list[tuple[Callable[[Content], object], str]] = [
    (unknown_category, "annotation 1 has category_id 99, which is not among the categories"),
    (lambda content: content.update(annotations=[]), "lists no annotation"),
    (lambda content: content.pop("annotations"), "has no 'annotations'"),
    (no_area, "no object is left"),
    (crowds_alone, "every object of coco_folder SPLIT at ROOT is a crowd; annotate objects one by one"),
    (runs_too_short, "annotation 1 has a mask that has run lengths that do not add up"),
    (lambda content: content["images"].append({**content["images"][0], "id": 99, "file_name": "x.png"}), "(x.png)"),
]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("change", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_command_line_refuses_wrong_files_in_one_line(
    change: Callable[[Content], object],
    said: str,
    split: str,
    coco: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copied = Path(shutil.copytree(coco, tmp_path / "coco"))
    det_runs.edit(copied, split, change)
    assert refusal(copied, tmp_path, capsys).count(said.replace("SPLIT", split).replace("ROOT", str(copied))) == 1


def refusal(root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says in its only line, having written no checkpoint."""
    capsys.readouterr()
    config = det_runs.write_config(folder / "config.py", root, train__checkpoint_interval=99)
    assert main([str(config), "--weights", "random", "--work-dir", str(folder / "run")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert not list((folder / "run").rglob("*.pth"))
    assert not (folder / "run" / "record.json").exists()
    return one_line(lines[0])


def test_an_image_that_breaks_off_is_named_when_it_is_read(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = Path(shutil.copytree(coco, tmp_path / "coco"))
    for path in sorted((copied / "train").iterdir())[1:]:  # headers, which are looked at before, are whole
        path.write_bytes(path.read_bytes()[:-200])
    said = refusal(copied, tmp_path, capsys)
    assert "cannot decode" in said
    assert "replace or delete this file" in said


def test_a_choice_of_classes_scores_as_coco_with_their_ids(coco: Path, tmp_path: Path) -> None:
    """The others are neither trained on nor counted as missed; images without the chosen ones are evaluated, too."""
    names = [c["name"] for c in json.loads(det_runs.annotation_file(coco, "val").read_text())["categories"]]
    sources = {
        part: {"type": "coco_folder", "root": str(coco), "split": split, "classes": names[1:6]}
        for part, split in (("train", "train"), ("test", "val"))
    }
    changes = {f"data__{part}": options for part, options in sources.items()}
    record = run_transfer(det_runs.config(coco, **changes), tmp_path)
    found = det_runs.detections(tmp_path)
    source = build_detections(sources["test"])
    assert {d["category_id"] for d in found} <= set(source.categories)
    assert record["metrics"]["n"] == det_runs.COUNTS["val"]
    assert set(record["metrics"]["class_AP"]["box"]) <= set(names[1:6])
    truth = json.loads(det_runs.annotation_file(coco, "val").read_text())["annotations"]
    shifted = [{**a, "bbox": [a["bbox"][0] + k % 4, *a["bbox"][1:]], "score": 0.5} for k, a in enumerate(truth)]
    for lines, kind in ((found, "box"), (found, "mask"), (shifted, "box")):
        path = det_runs.annotation_file(coco, "val")
        numbers = det_runs.coco_numbers(path, lines, kind, source.categories)
        ours, _ = evaluate_detections(source.to_coco(), lines, kind)
        assert ours["AP"] == pytest.approx(100 * numbers["AP"], abs=1e-9)
        if lines is found:
            assert record["metrics"][f"{kind}_AP"] == ours["AP"]
        else:
            assert 10 < ours["AP"] < 90
            assert ours["AP"] != pytest.approx(100 * det_runs.coco_numbers(path, lines, kind)["AP"], abs=0.1)
    labels = {
        int(label)
        for batch in det_runs.train_loader(det_runs.config(coco, **changes), build_detections(sources["train"]))
        for sample in batch["data_samples"]
        for label in sample.gt_instances.labels
    }
    assert labels <= set(range(5))
