"""COCO's average precision of boxes and masks, by size and by class, from the detections in every test image."""

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.tasks.detection.image_shares import Matches
from mlomae.backbones.training import GatheringMetric
from mlomae.common.errors import BackendError
from mlomae.common.installing import pip_command
from mlomae.data import Detections

KINDS = {"box": "bbox", "mask": "segm"}  # our name -> COCO's
_STATS = {"AP": 0, "AP50": 1, "AP75": 2, "AP_small": 3, "AP_medium": 4, "AP_large": 5, "AR100": 8}
Detection = dict[str, Any]
"""One line of COCO's results format, with ``bbox`` and ``segmentation``."""


def coco_api(backend: str) -> tuple[Any, Any]:
    """(COCO, COCOeval) of pycocotools or of faster_coco_eval; BackendError if that is not installed."""
    if backend == "pycocotools":
        return COCO, COCOeval
    try:
        from faster_coco_eval import COCO as FastCOCO
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        raise BackendError(
            f"faster_coco_eval is not installed; {pip_command()} faster-coco-eval, or set evaluator='pycocotools'"
        ) from error
    return FastCOCO, COCOeval_faster


def evaluate_detections(
    truth: Mapping[str, Any], detections: Sequence[Detection], kind: str, backend: str = "pycocotools"
) -> tuple[dict[str, float], dict[str, float]]:
    """COCO's numbers in percent, and the AP of each class.

    ``truth``: of `Detections.to_coco`. ``kind``: "box" or "mask". Keys AP (over IoU 0.5 to 0.95),
    AP50, AP75, AP_small, AP_medium, AP_large (areas up to 32², up to 96² and above), AR100. Left out: sizes and classes
    without objects, whose precision COCO gives as -1.
    """
    names = {category["id"]: category["name"] for category in truth["categories"]}
    if (found := _matched(truth, detections, kind, backend)) is None:
        return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "AR100": 0.0}, dict.fromkeys(names.values(), 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        found.accumulate()
        found.summarize()
    precision = np.asarray(found.eval["precision"])[:, :, :, 0, -1]  # (IoU, recall, class): all sizes, 100 detections
    per_class = {}
    for k, category in enumerate(found.params.catIds):
        values = precision[:, :, k]
        if (values > -1).any():
            per_class[names[category]] = 100.0 * float(values[values > -1].mean())
    return {name: 100.0 * float(found.stats[i]) for name, i in _STATS.items() if found.stats[i] > -1}, per_class


def match_classes(truth: Mapping[str, Any], detections: Sequence[Detection], kind: str) -> list[Matches]:
    """The detections of each category and what they match, over all sizes; images in the order of ``truth``."""
    images = {image["id"]: row for row, image in enumerate(truth["images"])}
    found = _matched(truth, detections, kind, "pycocotools")
    column = {category["id"]: k for k, category in enumerate(truth["categories"])}
    objects_NC = np.zeros((len(images), len(column)), dtype=np.int64)
    for a in truth["annotations"]:
        objects_NC[images[a["image_id"]], column[a["category_id"]]] += not a.get("iscrowd", 0)
    classes = []
    for k in range(len(column)):
        per_image = [] if found is None else found.evalImgs[k * len(found.params.areaRng) * len(images) :]
        parts = [part for part in per_image[: len(images)] if part is not None]  # the first range is all sizes
        score_D = np.concatenate([part["dtScores"] for part in parts] or [np.empty(0)])
        order_D = np.argsort(-score_D, kind="mergesort")  # as COCO sorts: equal scores keep the order of images
        rows = [np.full(len(part["dtScores"]), images[part["image_id"]]) for part in parts]
        flags = [
            np.concatenate([part[key] for part in parts] or [np.empty((10, 0))], axis=1)[:, order_D].astype(bool)
            for key in ("dtMatches", "dtIgnore")
        ]
        image_D = np.concatenate(rows or [np.empty(0, dtype=np.int64)])[order_D].astype(np.int64)
        classes.append(Matches(image_D, flags[0], ~flags[1], objects_NC[:, k]))
    return classes


def _matched(truth: Mapping[str, Any], detections: Sequence[Detection], kind: str, backend: str) -> Any:
    """COCO's evaluation after its matching; None without detections, which it refuses."""
    api, evaluator = coco_api(backend)
    other = "bbox" if kind == "mask" else "segmentation"  # with a box, COCO would take its area for the mask's
    lines = [{k: v for k, v in d.items() if k != other} for d in detections]
    if not lines:
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # they print tables
        known = api()
        known.dataset = copy.deepcopy(dict(truth))  # the evaluation writes into it
        known.createIndex()
        found = evaluator(known, known.loadRes(lines), KINDS[kind])
        found.params.catIds = [category["id"] for category in truth["categories"]]
        found.evaluate()
    return found


def lines_of(sample: Any, categories: Sequence[int]) -> list[Detection]:
    """The detections of an image, mmdet's data sample with ``img_id``; ``categories``: COCO's id of each class."""
    found = sample.pred_instances
    corners, scores, labels = (found[key].detach().cpu().numpy() for key in ("bboxes", "scores", "labels"))
    masks = found.masks.detach().cpu().numpy().astype(np.uint8)
    lines = []
    for (x0, y0, x1, y1), score, label, mask in zip(corners.tolist(), scores, labels, masks, strict=True):
        runs = coco_mask.encode(np.asfortranarray(mask))
        line: Detection = {"image_id": int(sample.img_id), "category_id": categories[int(label)]}
        line |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(score)}
        lines.append({**line, "segmentation": {**runs, "counts": runs["counts"].decode()}})
    return lines


class DetectionMetric(GatheringMetric):
    """Box and mask AP over all processes; afterwards every rank has ``detections`` and ``per_class``.

    Args:
        test: the images and their objects. backend: as `coco_api`.
    """

    def __init__(self, test: Detections, backend: str = "pycocotools") -> None:
        super().__init__()
        coco_api(backend)  # fail before the training
        self.test, self.backend = test, backend
        self.detections: list[Detection] = []
        self.per_class: dict[str, dict[str, float]] = {}

    def process(self, data_samples: Sequence[Any]) -> None:
        for sample in data_samples:
            self.rows.append((int(sample.img_id), lines_of(sample, self.test.categories)))

    def compute(self, rows: list[Any]) -> dict[str, float]:
        self.detections = [line for _, lines in rows for line in lines]
        summary: dict[str, float] = {"n": len(rows), "detections": len(self.detections)}
        truth = self.test.to_coco()
        for kind in KINDS:
            numbers, self.per_class[kind] = evaluate_detections(truth, self.detections, kind, self.backend)
            summary |= {f"{kind}_{name}": value for name, value in numbers.items()}
        return summary
