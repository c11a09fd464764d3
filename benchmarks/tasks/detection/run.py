"""The steps of a transfer to detection: box and mask AP, detections, overlays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.tasks.detection.config import DetectionConfig
from benchmarks.tasks.detection.data import eval_loader, train_loader
from benchmarks.tasks.detection.metric import Detection, DetectionMetric, save_detections
from benchmarks.tasks.detection.model import build_detector
from benchmarks.tasks.detection.overlays import save_overlay
from benchmarks.transfer.dense import dense_step
from benchmarks.transfer.pictures import evenly_spaced
from mlomae.backbones.run import Outcome, TransferRun, TransferSteps, open_pair
from mlomae.data import Detections, build_detections


class DetectionSteps(TransferSteps):
    """Trains a detector and measures COCO's AP; ``metric`` keeps what was measured."""

    config: DetectionConfig
    train: Detections
    test: Detections
    metric: DetectionMetric

    def open_data(self) -> tuple[Detections, Detections]:
        return open_pair(self.config.data, build_detections)

    def build_model(self) -> tuple[nn.Module, str]:
        return build_detector(self.config, len(self.train.classes))

    def train_and_test(self, model: nn.Module, run: TransferRun) -> Outcome:
        loader, test_loader = train_loader(self.config, self.train), eval_loader(self.config, self.test)
        images: Any = test_loader.dataset
        self.metric = DetectionMetric(str(self.test.annotation_file), images.category_ids, self.config.evaluator)
        trained = run.train(dense_step(model, {"detector": model}, self.config), loader, test_loader, self.metric)
        classes = {kind: {k: round(v, 3) for k, v in ap.items()} for kind, ap in self.metric.per_class.items()}
        return replace(trained, metrics={**self.metric.summary, **trained.metrics, "class_AP": classes})

    def save(self, run: TransferRun) -> None:
        save_detections(run.work_dir / "detections.json", self.metric.detections)
        save_pictures(run.work_dir / "overlays", self.config, self.test, self.metric.detections)


def save_pictures(folder: Path, config: DetectionConfig, test: Detections, detections: list[Detection]) -> None:
    """Evenly spaced test images: the truth, and the detections above ``overlay_score``."""
    classes = {category: i for i, category in enumerate(test.categories)}
    for i in evenly_spaced(len(test), config.overlays):
        image = test.image_ids[i]
        found = [d for d in detections if d["image_id"] == image and d["score"] >= config.overlay_score]
        shown = [{**d, "class": classes[d["category_id"]]} for d in sorted(found, key=lambda d: d["score"])]
        truth = [{**a, "class": a["category"]} for a in test.annotations(i)]
        image_HWC = test.image(i).permute(1, 2, 0).numpy()
        save_overlay(folder / f"{Path(test.path(i)).stem}.png", image_HWC, truth, shown, test.classes)
