"""One transfer to detection: a backbone and a recipe in; box and mask AP, detections, overlays and a record out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process

from benchmarks import records
from benchmarks.detection.config import DetectionConfig
from benchmarks.detection.data import eval_loader, train_loader
from benchmarks.detection.metric import Detection, DetectionMetric, save_detections
from benchmarks.detection.model import build_detector
from benchmarks.detection.overlays import save_overlay
from benchmarks.transfer.dense import DenseTransfer, build_wrapper
from benchmarks.transfer.origin import Origin, describe_weights
from benchmarks.transfer.param_groups import layer_schedule
from benchmarks.transfer.pictures import evenly_spaced
from benchmarks.transfer.records import check_folder, described, make_record, run_meta, write_records
from benchmarks.transfer.runner import build_runner, train_and_test
from benchmarks.transfer.sources import open_pair
from mlomae.data import Detections, build_detections
from mlomae.engine.exact_runner import join_process_group


def save_pictures(folder: Path, config: DetectionConfig, test: Detections, detections: list[Detection]) -> None:
    """Evenly spaced test images, the detections above ``overlay_score`` beside the truth."""
    classes = {category: i for i, category in enumerate(test.categories)}
    for i in evenly_spaced(len(test), config.overlays):
        image = test.image_ids[i]
        found = [d for d in detections if d["image_id"] == image and d["score"] >= config.overlay_score]
        shown = [{**d, "class": classes[d["category_id"]]} for d in sorted(found, key=lambda d: d["score"])]
        truth = [{**a, "class": a["category"]} for a in test.annotations(i)]
        image_HWC = test.image(i).permute(1, 2, 0).numpy()
        save_overlay(folder / f"{Path(test.image_path(i)).stem}.png", image_HWC, truth, shown, test.classes)


def run_transfer(
    config: DetectionConfig,
    work_dir: Path,
    resume: bool = False,
    records_dir: Path | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """Transfer, evaluate on the test split, write record, detections and overlays into ``work_dir``.

    ``origin``: of the configuration's weights, where the caller has read them already.
    Returns the record on the main process, {} on others. Raises ConfigError if the folder already holds a run and
    ``resume`` is off, CheckpointError if it holds another one, and the errors of its parts.
    """
    origin = origin or describe_weights(config.backbone.weights or "")
    check_folder(work_dir, resume, described(config, origin))
    join_process_group()
    git = records.git_state(Path(__file__).parent)  # now: the checkout may have moved on when the run ends
    train, test = open_pair(config.data, build_detections)
    detector, report = build_detector(config, len(train.classes))
    if is_main_process():
        print("\n".join(line for line in report.splitlines() if line.startswith("matched") or "note" in line))
    model = DenseTransfer(detector, config.seed, "detector").to("cuda" if torch.cuda.is_available() else "cpu")
    loader, tests = train_loader(config, train), eval_loader(config, test)
    images: Any = tests.dataset
    metric = DetectionMetric(str(test.annotation_file), images.category_ids, config.evaluator)
    runner = build_runner(
        config,
        model,
        loader,
        build_wrapper(model, config),
        layer_schedule(config.optim, len(loader), config.train.decay),
        tests,
        metric,
        work_dir,
        run_meta(config, origin, git),
        resume,
    )
    train_and_test(runner)
    if not is_main_process():
        return {}
    iterations = runner.max_iters
    classes = {kind: {k: round(v, 3) for k, v in found.items()} for kind, found in metric.per_class.items()}
    record = make_record(
        config,
        origin,
        task="detection",
        train=train,
        test=test,
        iterations=iterations,
        images_seen=iterations * config.data.batch_size,
        clock=runner.train_loop.clock,
        metrics={**metric.summary, **runner.last_logged(), "class_AP": classes},
        git=git,
    )
    save_detections(work_dir / "detections.json", metric.detections)
    save_pictures(work_dir / "overlays", config, test, metric.detections)
    write_records(record, work_dir, records_dir)
    return record
