"""One transfer to segmentation: a backbone and a recipe in; mIoU, areas of every image, overlays and a record out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.tasks.segmentation.data import eval_loader, train_loader
from benchmarks.tasks.segmentation.metric import SceneMetric
from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.tasks.segmentation.overlays import save_overlay
from benchmarks.transfer.areas import class_ious, save_areas
from benchmarks.transfer.dense import train_dense
from benchmarks.transfer.pictures import evenly_spaced
from mlomae.backbones.origin import Origin
from mlomae.backbones.run import begin_transfer, print_loaded
from mlomae.backbones.sources import open_pair
from mlomae.common.errors import DataError
from mlomae.data import Scenes, build_scenes


def open_scenes(config: SegmentationConfig) -> tuple[Scenes, Scenes]:
    """Training and test images; raises DataError for a single class, besides what `open_pair` raises."""
    train, test = open_pair(config.data, build_scenes)
    if len(train.classes) < 2:
        raise DataError(
            f"{train.describe()} has the class '{train.classes[0]}' alone; annotate the background as a class too"
        )
    return train, test


def save_pictures(folder: Path, metric: SceneMetric, test: Scenes) -> None:
    """The kept predictions beside image and labels."""
    for i, predicted_HW in sorted(metric.kept.items()):
        image_HWC = test.image(i).permute(1, 2, 0).numpy()
        name = f"{Path(str(test.path(i))).stem}.png"
        save_overlay(folder / name, image_HWC, test.labels(i).numpy(), predicted_HW, len(test.classes))


def run_transfer(
    config: SegmentationConfig,
    work_dir: Path,
    resume: bool = False,
    records_dir: Path | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """Transfer, evaluate on the test split, write record, areas and overlays into ``work_dir``.

    Returns the record on the main process, {} on others. Arguments as for `begin_transfer`; raises its errors and those
    of the other parts.
    """
    run = begin_transfer(config, work_dir, resume, records_dir, origin)
    train, test = open_scenes(config)
    run.check_test(test)
    segmentor, report = build_segmentor(config, len(train.classes))
    print_loaded(report)
    metric = SceneMetric(len(test.classes), keep=evenly_spaced(len(test), config.overlays))
    loaders = train_loader(config, train), eval_loader(config, test)
    runner = train_dense(run, segmentor, "segmentor", *loaders, metric)
    if not is_main_process():
        return {}
    assert metric.areas is not None
    metrics: dict[str, Any] = {**metric.summary, **runner.last_logged()}
    ious = class_ious(metric.areas)
    named = zip(test.classes, ious.tolist(), strict=True)
    metrics["class_iou"] = {name: round(iou, 4) for name, iou in named if math.isfinite(iou)}
    clock = runner.train_loop.clock
    record = run.record("segmentation", train, test, iterations=runner.max_iters, clock=clock, metrics=metrics)
    areas = work_dir / "areas.npz"
    save_areas(areas, metric.areas, class_names=tuple(test.classes), test_set=test.fingerprint(), **run.identity())
    save_pictures(work_dir / "overlays", metric, test)
    run.write(record, areas)
    return record
