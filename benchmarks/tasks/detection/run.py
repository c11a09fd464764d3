"""The steps of a transfer to detection: box and mask AP, detections, overlays."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.tasks.detection.config import DetectionConfig
from benchmarks.tasks.detection.data import CocoImages
from benchmarks.tasks.detection.image_shares import FORMAT, ImageShares, shares
from benchmarks.tasks.detection.metric import DetectionMetric, match_classes
from benchmarks.tasks.detection.model import build_detector
from benchmarks.tasks.detection.pictures import save_overlay
from benchmarks.transfer.dense import DenseSteps, evenly_spaced, picture_names
from mlomae.backbones.run import TransferRun, open_pair
from mlomae.common.atomic import write_text
from mlomae.data import Detections, build_detections


class DetectionSteps(DenseSteps):
    """Trains a detector and measures COCO's AP."""

    config: DetectionConfig
    train: Detections
    test: Detections
    metric: DetectionMetric

    def open_data(self) -> tuple[Detections, Detections]:
        return open_pair(self.config.data, build_detections)

    def open_images(self, source: dict[str, Any]) -> Any:
        return build_detections(source)

    def build_model(self) -> tuple[nn.Module, str]:
        return build_detector(self.config, len(self.train.classes))

    def images(self, train: bool) -> CocoImages:
        config = self.config
        if train:
            return CocoImages(self.train, config.data.augment, train=True, seed=config.seed)
        return CocoImages(self.test, config.data.evaluate, train=False)

    def create_metric(self, images: Any) -> DetectionMetric:
        return DetectionMetric(self.test, self.config.evaluator)

    def saved_modules(self, model: Any) -> Mapping[str, nn.Module]:
        return {"detector": model}

    def class_metrics(self) -> dict[str, Any]:
        return {
            "class_AP": {kind: {k: round(v, 3) for k, v in ap.items()} for kind, ap in self.metric.per_class.items()}
        }

    def save(self, run: TransferRun) -> Path:
        """Write all detections in COCO's results format, boxes and masks apart, the annotations that they were scored
        against, the shares of the images in the box AP, and pictures of evenly spaced test images: the truth, and the
        detections above ``overlay_score``.

        Apart, because pycocotools takes the area of a result that has a box for the box's, also where it compares
        masks, and the APs by size would be others. The names are those that mmdet gives them."""
        test, detections = self.test, self.metric.detections
        for kind, other in (("bbox", "segmentation"), ("segm", "bbox")):
            lines = [{key: value for key, value in line.items() if key != other} for line in detections]
            write_text(run.work_dir / f"detections.{kind}.json", json.dumps(lines))
        truth = test.to_coco()
        write_text(run.work_dir / "annotations.json", json.dumps(truth))
        matches = match_classes(truth, detections, "box")
        objects_NC = np.stack([found.objects_N for found in matches], axis=1)
        images = ImageShares(np.arange(len(test)), shares(matches, len(test)), objects_NC)
        path = run.work_dir / "image_shares.npz"
        FORMAT.save(path, images, class_names=test.classes, test_set=test.fingerprint(), **run.identity())
        classes = {category: i for i, category in enumerate(test.categories)}
        pictures = picture_names(test)
        for i in evenly_spaced(len(test), self.config.overlays):
            image, score = test.image_ids[i], self.config.overlay_score
            found = [d for d in detections if d["image_id"] == image and d["score"] >= score]
            shown = [{**d, "class": classes[d["category_id"]]} for d in sorted(found, key=lambda d: d["score"])]
            objects = [{**a, "class": a["category"]} for a in test.annotations(i)]
            image_HWC = test.image(i).permute(1, 2, 0).numpy()
            save_overlay(run.work_dir / "overlays" / pictures[i], image_HWC, objects, shown, test.classes, score)
        return path
