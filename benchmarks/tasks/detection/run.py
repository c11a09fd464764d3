"""One transfer to detection: a backbone and a recipe in; box and mask AP, detections, overlays and a record out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from benchmarks.tasks.detection.config import DetectionConfig
from benchmarks.tasks.detection.data import eval_loader, train_loader
from benchmarks.tasks.detection.metric import Detection, DetectionMetric, save_detections
from benchmarks.tasks.detection.model import build_detector
from benchmarks.tasks.detection.overlays import save_overlay
from benchmarks.transfer.dense import train_dense
from benchmarks.transfer.pictures import evenly_spaced
from mlomae.backbones.origin import Origin
from mlomae.backbones.run import begin_transfer, print_loaded
from mlomae.backbones.sources import open_pair
from mlomae.data import Detections, build_detections


def save_pictures(folder: Path, config: DetectionConfig, test: Detections, detections: list[Detection]) -> None:
    """Evenly spaced test images, the detections above ``overlay_score`` beside the truth."""
    classes = {category: i for i, category in enumerate(test.categories)}
    for i in evenly_spaced(len(test), config.overlays):
        image = test.image_ids[i]
        found = [d for d in detections if d["image_id"] == image and d["score"] >= config.overlay_score]
        shown = [{**d, "class": classes[d["category_id"]]} for d in sorted(found, key=lambda d: d["score"])]
        truth = [{**a, "class": a["category"]} for a in test.annotations(i)]
        image_HWC = test.image(i).permute(1, 2, 0).numpy()
        save_overlay(folder / f"{Path(test.path(i)).stem}.png", image_HWC, truth, shown, test.classes)


def run_transfer(
    config: DetectionConfig,
    work_dir: Path,
    resume: bool = False,
    records_dir: Path | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """Transfer, evaluate on the test split, write record, detections and overlays into ``work_dir``.

    Returns the record on the main process, {} on others. Arguments as for `begin_transfer`; raises its errors and those
    of the other parts.
    """
    run = begin_transfer(config, work_dir, resume, records_dir, origin)
    train, test = open_pair(config.data, build_detections)
    run.check_test(test)
    detector, report = build_detector(config, len(train.classes))
    print_loaded(report)
    loader, tests = train_loader(config, train), eval_loader(config, test)
    images: Any = tests.dataset
    metric = DetectionMetric(str(test.annotation_file), images.category_ids, config.evaluator)
    runner = train_dense(run, detector, "detector", loader, tests, metric)
    if not is_main_process():
        return {}
    classes = {kind: {k: round(v, 3) for k, v in found.items()} for kind, found in metric.per_class.items()}
    metrics = {**metric.summary, **runner.last_logged(), "class_AP": classes}
    clock = runner.train_loop.clock
    record = run.record("detection", train, test, iterations=runner.max_iters, clock=clock, metrics=metrics)
    save_detections(work_dir / "detections.json", metric.detections)
    save_pictures(work_dir / "overlays", config, test, metric.detections)
    run.write(record)
    return record
