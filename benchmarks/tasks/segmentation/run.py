"""The steps of a transfer to segmentation: mIoU, pixel counts of every image, overlays."""

import math
from dataclasses import replace
from pathlib import Path

from torch import nn

from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.tasks.segmentation.data import eval_loader, train_loader
from benchmarks.tasks.segmentation.metric import SceneMetric
from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.tasks.segmentation.pixel_counts import FORMAT, class_ious
from benchmarks.transfer.dense import dense_step
from benchmarks.transfer.pictures import evenly_spaced, save_overlay
from mlomae.backbones.run import Outcome, TransferRun, TransferSteps, open_pair
from mlomae.backbones.training import TransferStep
from mlomae.common.errors import DataError
from mlomae.data import Scenes, build_scenes


class SegmentationSteps(TransferSteps):
    """Trains a segmentor and measures mIoU; ``metric`` keeps what was measured."""

    config: SegmentationConfig
    train: Scenes
    test: Scenes
    metric: SceneMetric

    def open_data(self) -> tuple[Scenes, Scenes]:
        """Errors as `open_pair`; DataError for a single class."""
        train, test = open_pair(self.config.data, build_scenes)
        if len(train.classes) < 2:
            raise DataError(
                f"{train.describe()} has the class '{train.classes[0]}' alone; annotate the background as a class too"
            )
        return train, test

    def build_model(self) -> tuple[nn.Module, str]:
        return build_segmentor(self.config, len(self.train.classes))

    def create_step(self, model: nn.Module) -> TransferStep:
        """The update of the model."""
        return dense_step(model, {"segmentor": model}, self.config)

    def train_and_test(self, model: nn.Module, run: TransferRun) -> Outcome:
        classes = self.test.classes
        self.metric = SceneMetric(len(classes), keep=evenly_spaced(len(self.test), self.config.overlays))
        loaders = train_loader(self.config, self.train), eval_loader(self.config, self.test)
        trained = run.train(self.create_step(model), *loaders, self.metric)
        ious = zip(classes, class_ious(self.metric.counts).tolist(), strict=True)
        class_iou = {name: round(iou, 4) for name, iou in ious if math.isfinite(iou)}
        return replace(trained, metrics={**self.metric.summary, **trained.metrics, "class_iou": class_iou})

    def save(self, run: TransferRun) -> Path:
        path, names, test_set = run.work_dir / "pixel_counts.npz", self.test.classes, self.test.fingerprint()
        FORMAT.save(path, self.metric.counts, class_names=names, test_set=test_set, **run.identity())
        for i, predicted_HW in sorted(self.metric.kept.items()):
            image_HWC = self.test.image(i).permute(1, 2, 0).numpy()
            picture = run.work_dir / "overlays" / f"{Path(str(self.test.path(i))).stem}.png"
            save_overlay(picture, image_HWC, self.test.labels(i).numpy(), predicted_HW, len(names))
        return path
