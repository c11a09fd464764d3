"""COCO's numbers: of the truth itself, against mmdet's own metric, over any split into ranks, of nothing at all."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import det_runs
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as tools

from benchmarks.tasks.detection.metric import DetectionMetric, evaluate_detections
from mlomae.common.errors import DataError
from mlomae.data import Textures
from mlomae.data.write import write_coco

COUNT = 12


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco") / "set"
    write_coco(root, {"val": Textures("test", count=COUNT, mixed=True)})
    return root / "annotations" / "instances_val.json"


def guesses(annotations: Path, noise: float) -> list[dict[str, Any]]:
    """The truth, its boxes and masks moved by up to ``noise`` pixels, some in another class, with random scores."""
    draw = np.random.default_rng(0)
    found = []
    for a in json.loads(annotations.read_text())["annotations"]:
        shift = draw.uniform(-noise, noise, 4)
        box = [a["bbox"][0] + shift[0], a["bbox"][1] + shift[1], a["bbox"][2] + abs(shift[2]), a["bbox"][3]]
        category = 1 + (a["category_id"] + int(draw.integers(2) if noise else 0) - 1) % 8
        found.append({"image_id": a["image_id"], "category_id": category, "bbox": [float(v) for v in box]})
        runs = tools.frPyObjects(a["segmentation"], 32, 32)
        found[-1] |= {"segmentation": {**runs, "counts": runs["counts"].decode()}, "score": float(draw.uniform())}
    return found


def test_the_truth_scores_a_hundred(annotations: Path) -> None:
    for kind in ("box", "mask"):
        numbers, classes = evaluate_detections(det_runs.truth(annotations), guesses(annotations, 0.0), kind)
        assert numbers["AP"] == pytest.approx(100.0)
        assert classes
        assert all(value == pytest.approx(100.0) for value in classes.values())
        assert "AP_large" not in numbers  # no object of 96² pixels in images of 32²


def test_equal_to_mmdets_metric(annotations: Path) -> None:
    from mmdet.evaluation import CocoMetric  # after benchmarks.tasks.detection, which installs the operators

    found = guesses(annotations, 3.0)
    theirs = CocoMetric(ann_file=str(annotations), metric=["bbox", "segm"], proposal_nums=(1, 10, 100))
    theirs.dataset_meta = {"classes": tuple(c["name"] for c in json.loads(annotations.read_text())["categories"])}
    for image in range(1, COUNT + 1):
        mine = [d for d in found if d["image_id"] == image]
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (d["bbox"] for d in mine)]).reshape(-1, 4)
        masks = np.stack([tools.decode(d["segmentation"]) for d in mine])
        pred = {"bboxes": torch.tensor(boxes), "scores": torch.tensor([d["score"] for d in mine])}
        pred |= {"labels": torch.tensor([d["category_id"] - 1 for d in mine]), "masks": torch.tensor(masks)}
        theirs.process({}, [{"img_id": image, "ori_shape": (32, 32), "pred_instances": pred}])
    expected = theirs.evaluate(COUNT)
    for kind, coco in (("box", "bbox"), ("mask", "segm")):
        numbers, _ = evaluate_detections(det_runs.truth(annotations), found, kind)
        assert 0.0 < numbers["AP"] < 100.0
        for ours, name in (("AP", "mAP"), ("AP50", "mAP_50"), ("AP75", "mAP_75"), ("AP_small", "mAP_s")):
            assert numbers[ours] == pytest.approx(100 * expected[f"coco/{coco}_{name}"], abs=0.051)  # they round


def samples(annotations: Path) -> list[Any]:
    made = []
    for image in range(1, COUNT + 1):
        mine = [d for d in guesses(annotations, 2.0) if d["image_id"] == image]
        masks = [tools.decode(d["segmentation"]) for d in mine]
        boxes = [[d["bbox"][0], d["bbox"][1], d["bbox"][0] + d["bbox"][2], d["bbox"][1] + d["bbox"][3]] for d in mine]
        found = InstanceData(
            bboxes=torch.tensor(boxes),
            scores=torch.tensor([d["score"] for d in mine]),
            labels=torch.tensor([d["category_id"] - 1 for d in mine]),
            masks=torch.tensor(np.stack(masks)).bool(),
        )
        made.append(SimpleNamespace(img_id=image, pred_instances=found))
    return made


def test_any_order_gives_the_same_and_every_image_counts_once(annotations: Path) -> None:
    results = []
    for order in (range(COUNT), reversed(range(COUNT))):
        metric = DetectionMetric(det_runs.opened(annotations))
        given = samples(annotations)
        for i in order:
            metric.process([given[i]])
        results.append(metric.evaluate(COUNT))
    assert results[0] == results[1]
    numbers, _ = evaluate_detections(det_runs.truth(annotations), json.loads(json.dumps(metric.detections)), "mask")
    assert numbers["AP"] == results[0]["mask_AP"]
    metric.process(samples(annotations)[:3])
    with pytest.raises(DataError, match="saw 3 of 12 images"):
        metric.evaluate(COUNT)


def test_nothing_detected_is_zero(annotations: Path) -> None:
    numbers, classes = evaluate_detections(det_runs.truth(annotations), [], "box")
    assert numbers["AP"] == 0.0
    assert set(classes.values()) == {0.0}


def test_faster_coco_eval_equals_pycocotools(annotations: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    found = guesses(annotations, 3.0)
    for kind in ("box", "mask"):
        slow, fast = (
            evaluate_detections(det_runs.truth(annotations), found, kind, b)
            for b in ("pycocotools", "faster_coco_eval")
        )
        assert slow[0].keys() == fast[0].keys()
        assert all(fast[0][k] == pytest.approx(slow[0][k], abs=1e-6) for k in slow[0])
        assert fast[1] == pytest.approx(slow[1], abs=1e-6)
