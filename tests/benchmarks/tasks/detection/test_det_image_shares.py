"""AP over weighted images is COCO's on copies of them; the shares of images stand for AP when images are resampled."""

import copy
import json
from pathlib import Path
from typing import Any

import det_runs
import numpy as np
import pytest

from benchmarks.tasks.detection.image_shares import FORMAT, UNIT, Matches, average_precision, mean_share, shares
from benchmarks.tasks.detection.metric import evaluate_detections, match_classes
from mlomae.common.errors import DataError
from mlomae.data import Textures
from mlomae.data.write import write_coco

COUNT = 40


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("coco") / "set"
    write_coco(root, {"val": Textures("test", count=COUNT, mixed=True)})
    found = det_runs.truth(root / "annotations" / "instances_val.json")
    for crowd in found["annotations"][::9]:
        crowd["iscrowd"] = 1
    return found


def detections_of(truth: dict[str, Any], each: int = 4, seed: int = 0) -> list[dict[str, Any]]:
    """Boxes near the objects, of their class or another one; no score is there twice, or copies would mix."""
    draw = np.random.default_rng(seed)
    found = []
    for a in truth["annotations"]:
        for _ in range(each):
            shift = draw.normal(scale=3.0, size=4)
            box = [float(v) for v in (a["bbox"] + shift)]
            box[2:] = [max(1.0, v) for v in box[2:]]
            category = a["category_id"] if draw.uniform() < 0.7 else 1 + int(draw.integers(8))
            line = {"image_id": a["image_id"], "category_id": category, "bbox": box}
            found.append({**line, "score": float(draw.uniform())})
    return found


def copied(
    truth: dict[str, Any], detections: list[dict[str, Any]], times: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every image, with its objects and detections, as often as ``times`` says."""
    made = {**truth, "images": [], "annotations": []}
    lines = []
    for image, count in zip(truth["images"], times.astype(int).tolist(), strict=True):
        for _ in range(count):
            new = len(made["images"]) + 1
            made["images"].append({**image, "id": new})
            for a in truth["annotations"]:
                if a["image_id"] == image["id"]:
                    made["annotations"].append({**a, "image_id": new, "id": len(made["annotations"]) + 1})
            lines += [{**d, "image_id": new} for d in detections if d["image_id"] == image["id"]]
    return copy.deepcopy(made), lines


def ap_of(truth: dict[str, Any], detections: list[dict[str, Any]]) -> float:
    return evaluate_detections(truth, detections, "box")[0]["AP"]


def test_weights_are_copies_of_images(truth: dict[str, Any]) -> None:
    detections = detections_of(truth)
    classes = match_classes(truth, detections, "box")
    draw = np.random.default_rng(1)
    weights = np.stack([np.ones(COUNT), *draw.integers(0, 4, size=(5, COUNT)), np.eye(COUNT)[3], 1 - np.eye(COUNT)[7]])
    found = average_precision(classes, weights)
    expected = [ap_of(*copied(truth, detections, row)) for row in weights]
    assert found == pytest.approx(expected, abs=1e-9)
    assert len(set(found.round(3).tolist())) == len(weights), "too blunt"


def test_a_class_without_objects_or_without_detections(truth: dict[str, Any]) -> None:
    some = {**truth, "annotations": [a for a in truth["annotations"] if a["category_id"] != 2]}
    few = [d for d in detections_of(truth) if d["category_id"] != 3]
    classes = match_classes(some, few, "box")
    assert average_precision(classes, np.ones((1, COUNT)))[0] == pytest.approx(ap_of(some, few), abs=1e-9)
    none = match_classes(truth, [], "box")
    assert average_precision(none, np.ones((2, COUNT))).tolist() == [0.0, 0.0]
    assert shares(none, COUNT).tolist() == [0] * COUNT


def test_resampled_shares_are_the_ap_of_resampled_images(truth: dict[str, Any]) -> None:
    """To first order: 1,000 resampled sets have the same standard error, and the two APs of a set go together."""
    found = [match_classes(truth, detections_of(truth, seed=seed), "box") for seed in (0, 1)]
    values = np.stack([shares(classes, COUNT) for classes in found])
    whole = [float(average_precision(classes, np.ones((1, COUNT)))[0]) for classes in found]
    assert mean_share(values.sum(axis=1, keepdims=True), COUNT) == pytest.approx(whole, abs=COUNT * UNIT)
    draws = np.random.default_rng(2).multinomial(COUNT, np.full(COUNT, 1 / COUNT), size=1000).astype(float)
    exact, linear = (
        numbers[0] - numbers[1]
        for numbers in (
            [average_precision(classes, draws) for classes in found],
            [mean_share(draws @ row[:, None], COUNT) for row in values],
        )
    )
    assert linear.std() == pytest.approx(exact.std(), rel=0.15)
    assert np.corrcoef(exact, linear)[0, 1] > 0.85
    moved = mean_share(draws @ values[0][::-1, None], COUNT) - mean_share(draws @ values[1][:, None], COUNT)
    assert abs(np.corrcoef(exact, moved)[0, 1]) < 0.85, "too blunt: shares of other images"


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, truth: dict[str, Any]) -> None:
    classes = match_classes(truth, detections_of(truth), "box")
    before = shares(classes, COUNT)
    monkeypatch.setattr("benchmarks.tasks.detection.image_shares._CELLS", 100)
    assert shares(classes, COUNT).tolist() == before.tolist()


def test_damaged_files_are_named(tmp_path: Path, truth: dict[str, Any]) -> None:
    from benchmarks.tasks.detection.image_shares import ImageShares, read_tested

    classes = match_classes(truth, detections_of(truth), "box")
    objects = np.stack([found.objects_N for found in classes], axis=1)
    assert isinstance(classes[0], Matches)
    good = ImageShares(np.arange(COUNT), shares(classes, COUNT), objects)
    names = [category["name"] for category in truth["categories"]]
    identity = {"class_names": names, "test_set": "t", "run": "a run", "config_hash": "h"}
    FORMAT.save(tmp_path / "good.npz", good, **identity)
    tested = read_tested(tmp_path / "good.npz")
    assert tested.sums.whole() == pytest.approx(ap_of(truth, detections_of(truth)), abs=COUNT * UNIT)
    assert json.dumps(tested.truth.sum(axis=0).tolist()) == json.dumps(objects.sum(axis=0).tolist())
    for bad in (
        ImageShares(good.index, good.box_AP[:-1], objects),
        ImageShares(good.index, good.box_AP, objects - 1),
    ):
        with pytest.raises(DataError, match="not a usable file of predictions"):
            FORMAT.save(tmp_path / "bad.npz", bad, **identity)
