"""A trained detector on new images, and its checkpoint evaluated again."""

import json
from pathlib import Path

import det_runs
import numpy as np
import pandas as pd
import pytest
import torch
from det_runs import run_transfer
from PIL import Image
from run_samples import differences

from benchmarks.tasks.detection.pictures import save_found
from mlomae import cli
from mlomae.backbones.load import load_transfer


@pytest.fixture(scope="module")
def trained(one_thread: None, coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("trained") / "run"
    run_transfer(det_runs.config(coco), work)
    return work


def test_new_images_get_the_detections_that_the_evaluation_has_kept(trained: Path, coco: Path, tmp_path: Path, capsys):
    source = det_runs.opened(det_runs.annotation_file(coco, "val"))
    files, out = [source.path(i) for i in range(len(source))], tmp_path / "new"
    assert cli.main(["predict", str(trained), *files, "--out", str(out), "--threshold", "0.1"]) == 0
    assert "with a score of 0.1 or more in pictures" in capsys.readouterr().out
    kept = det_runs.detections(trained)
    found = json.loads((out / "detections.json").read_text())
    by_image = {image["id"]: image["file_name"] for image in found["images"]}
    names = {category["id"]: category["name"] for category in found["categories"]}
    classes = dict(zip(source.categories, source.classes, strict=True))
    numbers = {int(number): i for i, number in enumerate(source.image_ids)}

    def rows(lines, file, name) -> list[tuple]:
        return sorted((file(line), name(line), round(line["score"], 5), *np.round(line["bbox"], 3)) for line in lines)

    ours = rows(found["annotations"], lambda line: by_image[line["image_id"]], lambda line: names[line["category_id"]])
    theirs = rows(kept, lambda line: files[numbers[line["image_id"]]], lambda line: classes[line["category_id"]])
    assert len(ours) == len(kept) > 5
    assert ours == theirs
    table = pd.read_csv(out / "detections.csv")
    assert len(table) == len(ours)
    assert set(table.columns) == {"file", "label", "score", "x", "y", "width", "height"}
    assert len(list((out / "pictures").iterdir())) == len(files)


def test_every_instance_has_a_colour_of_its_own(tmp_path: Path) -> None:
    """Two objects of one class: a third colour is not there, and one colour would not do."""
    image = np.full((40, 60, 3), 127, dtype=np.uint8)
    things = [
        {"bbox": [x, 5, 20, 20], "class": 0, "score": 0.9, "segmentation": [[x, 5, x + 20, 5, x + 20, 25, x, 25]]}
        for x in (5, 35)
    ]
    save_found(tmp_path / "a.png", image, things, ["cat"], 0.5)
    save_found(tmp_path / "b.png", image, [{**things[0]}, {**things[1], "bbox": [35, 6, 20, 20]}], ["cat"], 0.5)
    first = np.array(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    half = first[:, first.shape[1] // 3 :]
    saturated = half[np.ptp(half, axis=2) > 60]
    colours, counts = np.unique(saturated // 32, axis=0, return_counts=True)
    assert (counts > 500).sum() >= 2
    assert first.shape == np.array(Image.open(tmp_path / "b.png").convert("RGB")).shape
    assert len(colours) > 1


def test_mmdet_alone_detects_the_same(trained: Path, coco: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "detector"
    assert cli.main(["export", str(trained), str(out), "--format", "mmdet"]) == 0
    assert f'init_detector("{out / "config.py"}"' in capsys.readouterr().out
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(str(out / "config.py"), str(out / "weights.pth"), device="cpu")
    source = det_runs.opened(det_runs.annotation_file(coco, "val"))
    assert list(model.dataset_meta["classes"]) == list(source.classes)
    kept = det_runs.detections(trained)
    for i, image_id in enumerate(source.image_ids):
        found = inference_detector(model, source.path(i)).pred_instances
        theirs = [line for line in kept if line["image_id"] == int(image_id)]
        assert found.scores.tolist() == pytest.approx([line["score"] for line in theirs], abs=1e-5)
        corners = [(x, y, x + w, y + h) for x, y, w, h in (line["bbox"] for line in theirs)]
        np.testing.assert_allclose(found.bboxes.numpy().reshape(-1, 4), np.reshape(corners, (-1, 4)), atol=1e-3)
        assert [source.categories[k] for k in found.labels.tolist()] == [line["category_id"] for line in theirs]
    with torch.no_grad():  # mutation
        model.rpn_head.rpn_cls.bias += 3
        model.roi_head.bbox_head.fc_cls.weight.mul_(-1)
    changed = inference_detector(model, source.path(0)).pred_instances.scores.tolist()
    assert changed != pytest.approx([line["score"] for line in kept if line["image_id"] == int(source.image_ids[0])])
    assert cli.main(["export", str(trained), str(out), "--format", "timm"]) == 2
    assert "exported whole: --format mmdet" in capsys.readouterr().err


def test_evaluate_gives_the_metrics_of_the_record(trained: Path, capsys) -> None:
    metrics = json.loads((trained / "record.json").read_text())["metrics"]
    assert cli.main(["evaluate", str(trained)]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert float(printed["detections"]) == metrics["detections"]
    assert float(printed["box_AP"]) == pytest.approx(metrics["box_AP"], rel=1e-3)
    assert float(printed["mask_AR100"]) == pytest.approx(metrics["mask_AR100"], rel=1e-3)


def test_evaluating_on_the_way_ends_with_the_same_weights(trained: Path, coco: Path, tmp_path: Path) -> None:
    record = run_transfer(det_runs.config(coco, train__eval_interval=4), tmp_path)
    (row,) = json.loads((tmp_path / "validation.json").read_text())["rows"]
    assert row == {"step": 4, "value": record["metrics"]["box_AP"]}
    ours, theirs = (load_transfer(work).state["modules"] for work in (tmp_path, trained))
    assert differences(ours, theirs) == []


def test_a_threshold_outside_its_range_is_refused(trained: Path, coco: Path, tmp_path: Path, capsys) -> None:
    assert cli.main(["predict", str(trained), str(coco), "--out", str(tmp_path / "n"), "--threshold", "3"]) == 2
    assert "threshold" in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
