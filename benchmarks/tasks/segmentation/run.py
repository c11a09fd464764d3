"""The steps of a transfer to segmentation: mIoU, pixel counts of every image, overlays."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.tasks.segmentation.data import ScenePairs
from benchmarks.tasks.segmentation.metric import SceneMetric
from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.tasks.segmentation.pixel_counts import FORMAT, class_ious
from benchmarks.transfer.dense import DenseSteps, evenly_spaced, picture_names, save_overlay
from mlomae.backbones.run import TransferRun, open_pair
from mlomae.common.atomic import replacing
from mlomae.data import Scenes, build_scenes


class SegmentationSteps(DenseSteps):
    """Trains a segmentor and measures mIoU."""

    config: SegmentationConfig
    train: Scenes
    test: Scenes
    metric: SceneMetric

    def open_data(self) -> tuple[Scenes, Scenes]:
        return open_pair(self.config.data, build_scenes)

    def open_images(self, source: dict[str, Any]) -> Any:
        return build_scenes(source)

    def build_model(self) -> tuple[nn.Module, str]:
        return build_segmentor(self.config, len(self.train.classes))

    def images(self, train: bool) -> ScenePairs:
        config, size = self.config, self.config.backbone.height_width
        if train:
            return ScenePairs(self.train, config.data.augment, size, seed=config.seed)
        return ScenePairs(self.test, config.data.evaluate)

    def create_metric(self, images: Any) -> SceneMetric:
        return SceneMetric(len(self.test.classes), keep=evenly_spaced(len(self.test), self.config.overlays))

    def saved_modules(self, model: Any) -> Mapping[str, nn.Module]:
        return {"segmentor": model}

    def class_metrics(self) -> dict[str, Any]:
        ious = zip(self.test.classes, class_ious(self.metric.counts).tolist(), strict=True)
        return {"class_iou": {name: round(iou, 4) for name, iou in ious if math.isfinite(iou)}}

    def save(self, run: TransferRun) -> Path:
        """Write pixel counts, pictures of evenly spaced test images, and the prediction for every image as a PNG in
        ``predictions``, with the name of the image and the values that annotations have: 1 is the first class."""
        path, names, test_set = run.work_dir / "pixel_counts.npz", self.test.classes, self.test.fingerprint()
        FORMAT.save(path, self.metric.counts, class_names=names, test_set=test_set, **run.identity())
        pictures = picture_names(self.test)
        for i, content in self.metric.pngs.items():
            with replacing(run.work_dir / "predictions" / pictures[i]) as file:
                file.write_bytes(content)
        for i, predicted_HW in sorted(self.metric.kept.items()):
            image_HWC = self.test.image(i).permute(1, 2, 0).numpy()
            save_overlay(
                run.work_dir / "overlays" / pictures[i],
                image_HWC,
                self.test.labels(i).numpy(),
                predicted_HW,
                len(names),
            )
        return path
