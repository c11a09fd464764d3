"""Two processes with half of each batch: one model, whose step is the mean of the halves', and which both evaluate."""

import gc
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import det_runs
import det_two_ranks
import pytest
import torch
from det_two_ranks import ITERATIONS, Weights
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from on_two_ranks import in_two_forks, on_two_ranks
from run_samples import differences

from benchmarks.tasks.detection.data import CocoImages
from benchmarks.tasks.detection.metric import DetectionMetric, evaluate_detections
from benchmarks.tasks.detection.model import build_detector
from mlomae.backbones import training
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.backbones.training import build_optimizer
from mlomae.common.errors import DataError
from mlomae.common.random_keys import root_key
from mlomae.data import build_detections


class Found(NamedTuple):
    """Images (an odd number of test images); weights by variant; where the runs of two ranks and of one are."""

    root: Path
    first: dict[str, Weights]
    second: dict[str, Weights]
    alone: dict[str, Weights]
    together_dir: Path
    alone_dir: Path


def one_image_less(content: dict[str, Any]) -> None:
    last = content["images"].pop()["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != last]


@pytest.fixture(scope="module")
def found(one_thread: None, coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    root = Path(shutil.copytree(coco, tmp_path_factory.mktemp("ranks") / "coco"))
    det_runs.edit(root, "val", one_image_less)
    out, alone = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")

    def transfers(rank: int) -> None:
        gc.freeze()  # mmengine collects garbage for each data set, among all that pytest has imported
        torch.save(det_two_ranks.transfers(root, out), out / f"rank{rank}.pt")

    in_two_forks(transfers)
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    return Found(root, first, second, det_two_ranks.transfers(root, alone, ("plain", "all boxes")), out, alone)


@pytest.fixture(scope="module")
def by_hand(found: Found) -> tuple[Weights, float]:
    """Weights after the steps of two ranks, and the mean of all losses: for each half of a batch mmdet's losses, after
    the draws of its rank; the mean of the two gradients."""
    config = det_two_ranks.config("plain", found.root)
    detector: Any = build_detector(config, det_runs.CLASSES)[0]
    detector.train()
    o = config.optim
    optimizer = build_optimizer(layer_decay_groups(detector, o.lr, o.weight_decay, o.layer_decay), o)
    share, losses = config.data.batch_size // 2, []
    for iteration, batch in enumerate(det_runs.train_loader(config, build_detections(config.data.train))):
        halves = []
        for rank in range(2):
            half = {key: values[rank * share : (rank + 1) * share] for key, values in batch.items()}
            torch.manual_seed(root_key(config.seed, "drop", iteration, rank))
            loss, _ = detector.parse_losses(detector(**detector.data_preprocessor(half, True), mode="loss"))
            optimizer.zero_grad()
            loss.backward()
            halves.append({name: p.grad.clone() for name, p in detector.named_parameters()})
            losses.append(float(loss.detach()))
        for name, p in detector.named_parameters():
            p.grad = (halves[0][name] + halves[1][name]) / 2
        optimizer.step()
    return dict(detector.state_dict()), sum(losses) / len(losses)


def test_a_step_of_two_ranks_is_the_mean_of_their_halves(found: Found, by_hand: tuple[Weights, float]) -> None:
    assert differences(found.first["plain"], found.second["plain"]) == [], "the ranks drift apart"
    weights, _ = by_hand
    assert differences(found.first["plain"], weights) == []
    start = build_detector(det_two_ranks.config("plain", found.root), det_runs.CLASSES)[0].state_dict()
    assert error(start, weights) > 1e-4, "it has moved"


def error(a: Weights, b: Weights) -> float:
    """Largest difference, relative to the largest weight."""
    assert a.keys() == b.keys()
    scale = max(float(t.abs().max()) for t in b.values())
    return max(float((a[k] - b[k]).abs().max()) / scale for k in b)


def test_one_process_does_the_same_where_nothing_is_drawn_and_all_divide_by_the_same(found: Found) -> None:
    """As `ViTMaskRCNN` says: mmdet draws boxes and divides by numbers of its own rank's."""
    assert differences(found.first["all boxes"], found.second["all boxes"]) == []
    same = error(found.first["all boxes"], found.alone["all boxes"])
    other = error(found.first["plain"], found.alone["plain"])
    assert same < 1e-6
    assert other > 100 * same


def test_without_averaging_the_ranks_drift_apart(found: Found) -> None:
    assert differences(found.first["not averaged"], found.second["not averaged"])
    assert differences(found.first["not averaged"], found.first["plain"])


def test_both_ranks_detections_are_those_of_one_process_once_each_and_in_order(found: Found) -> None:
    """The weights of rank 0, evaluated here image by image, give the file and the numbers that two ranks wrote."""
    config = det_two_ranks.config("plain", found.root)
    detector: Any = build_detector(config, det_runs.CLASSES)[0].eval()
    detector.load_state_dict(found.first["plain"])
    images = CocoImages(build_detections(config.data.test), [], train=False)
    metric = DetectionMetric(images.source)
    for i in range(len(images)):
        with torch.no_grad():
            metric.process(detector.test_step(pseudo_collate([images[i]])))
    numbers = metric.evaluate(len(images))
    written = det_runs.detections(found.together_dir / "plain")
    record = json.loads((found.together_dir / "plain" / "record.json").read_text())
    assert len(images) == 5
    assert numbers["detections"] == len(written) > 5
    assert written == metric.detections
    assert {d["image_id"] for d in written} == {1, 2, 3, 4, 5}
    assert {name: record["metrics"][name] for name in numbers} == numbers
    for kind in ("box", "mask"):
        expected, _ = evaluate_detections(images.source.to_coco(), written, kind)
        assert {name: numbers[f"{kind}_{name}"] for name in expected} == expected
    alone = json.loads((found.alone_dir / "plain" / "record.json").read_text())
    assert record["config_hash"] == alone["config_hash"]
    assert record["images_seen"] == alone["images_seen"] == {"lower": 4 * ITERATIONS, "head": 0, "upper": 0}


def test_the_loss_written_is_the_mean_over_the_ranks(found: Found, by_hand: tuple[Weights, float]) -> None:
    record = json.loads((found.together_dir / "plain" / "record.json").read_text())
    assert record["metrics"]["loss"] == pytest.approx(by_hand[1], rel=1e-5)


def test_an_image_that_two_ranks_evaluate_is_an_error(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(image: int) -> Any:
        box = torch.tensor([[1.0, 2, 9, 12]])
        masks = torch.zeros(1, 32, 32, dtype=torch.bool)
        one = InstanceData(bboxes=box, scores=torch.tensor([0.5]), labels=torch.tensor([0]), masks=masks)
        return SimpleNamespace(img_id=image, pred_instances=one)

    source = det_runs.opened(det_runs.annotation_file(found.root, "val"))
    for parts, said in (([[1, 2], [3, 4, 5]], None), ([[3, 4, 5], [1, 2]], None), ([[1, 2, 3], [3, 4, 5]], "6 of 5")):
        ranks = []
        for part in parts:
            metric = DetectionMetric(source)
            metric.process([given(image) for image in part])
            ranks.append(list(metric.rows))
        monkeypatch.setattr(training, "all_gather_object", lambda results, ranks=ranks: ranks)
        if said is None:
            assert metric.evaluate(5)["detections"] == 5
            assert [d["image_id"] for d in metric.detections] == [1, 2, 3, 4, 5]
        else:
            with pytest.raises(DataError, match=said):
                metric.evaluate(5)


@pytest.mark.slow
def test_the_command_line_under_torchrun(coco: Path, tmp_path: Path) -> None:
    """As a shell starts it: one record and one file of detections, which score what the record says."""
    config = det_runs.write_config(tmp_path / "config.py", coco)
    work = tmp_path / "two"
    program = ["-m", "mlomae.cli", "bench", "detection", str(config), "--weights", "random", "--work-dir", str(work)]
    printed = on_two_ranks(*program, cwd=tmp_path)
    assert printed.count("record, detections, image_shares.npz, overlays:") == 1
    record, written = json.loads((work / "record.json").read_text()), det_runs.detections(work)
    assert record["metrics"]["n"] == det_runs.COUNTS["val"]
    for kind in ("box", "mask"):
        numbers, _ = evaluate_detections(det_runs.truth(det_runs.annotation_file(coco, "val")), written, kind)
        assert {name: record["metrics"][f"{kind}_{name}"] for name in numbers} == numbers
