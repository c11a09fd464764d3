"""The metric that collects the `PixelCounts` of every test image, and their sums: mIoU, mAcc, aAcc as in mmseg.

Shape legend: H W pixels.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tasks.segmentation.pixel_counts import PixelCounts
from benchmarks.transfer import dense  # noqa: F401  mmcv's operators, before mmseg
from mlomae.backbones.training import GatheringMetric
from mlomae.common.errors import DataError
from mlomae.data import IGNORE

# isort: split
from mmseg.evaluation import IoUMetric


def summarise(counts: PixelCounts) -> dict[str, float]:
    """mIoU, mAcc, aAcc in percent over the pixels of all images.

    A class that is neither predicted nor present has no IoU, and one that is not present has no accuracy: the means
    leave them out, and ``classes_without_pixels`` counts the classes that are not present.
    """
    intersect, union, predicted, true = (
        torch.from_numpy(part.sum(axis=0)).double()
        for part in (counts.intersect, counts.union, counts.predicted, counts.true)
    )
    found = IoUMetric.total_area_to_metrics(intersect, union, predicted, true, ["mIoU"])
    return {
        "mIoU": 100.0 * float(np.nanmean(found["IoU"])),
        "mAcc": 100.0 * float(np.nanmean(found["Acc"])),
        "aAcc": 100.0 * float(found["aAcc"]),
        "n": len(counts.index),
        "classes_without_pixels": int((true == 0).sum()),
    }


def as_png(labels_HW: NDArray[np.uint8]) -> bytes:
    """Labels as annotations have them: a grey PNG of 8 bits, 1 for the first class."""
    content = io.BytesIO()
    Image.fromarray(labels_HW + np.uint8(1)).save(content, format="PNG")
    return content.getvalue()


class SceneMetric(GatheringMetric):
    """`summarise` over all processes; afterwards every rank has ``counts``, the ``kept`` predictions, and all of them
    as ``pngs``, by index.

    Args:
        num_classes: C.
        keep: indices of test images whose prediction is kept, (H, W) uint8, for pictures.
    """

    def __init__(self, num_classes: int, keep: Sequence[int] = ()) -> None:
        super().__init__()
        self.num_classes, self.keep = num_classes, frozenset(keep)
        self.counts: PixelCounts
        self.kept: dict[int, NDArray[np.uint8]] = {}
        self.pngs: dict[int, bytes] = {}

    def process(self, data_samples: Sequence[Any]) -> None:
        for sample in data_samples:
            predicted_HW = sample.pred_sem_seg.data.squeeze(0)
            true_HW = sample.gt_sem_seg.data.squeeze(0).to(predicted_HW)
            if predicted_HW.shape != true_HW.shape:
                raise DataError(
                    f"prediction {tuple(predicted_HW.shape)} and labels {tuple(true_HW.shape)} of '{sample.img_path}' "
                    "differ in size; check the test data set"
                )
            found = IoUMetric.intersect_and_union(predicted_HW, true_HW, self.num_classes, IGNORE)
            intersect, _, predicted, true = (area.numpy().astype(np.int64) for area in found)
            index = int(sample.index)
            labels_HW = predicted_HW.byte().cpu().numpy()
            kept = labels_HW if index in self.keep else None
            self.rows.append((index, intersect, predicted, true, kept, as_png(labels_HW)))

    def compute(self, rows: list[Any]) -> dict[str, float]:
        *counts, kept, pngs = zip(*rows, strict=True)
        self.counts = PixelCounts(*map(np.array, counts))
        self.kept = {index: picture for index, picture in zip(counts[0], kept, strict=True) if picture is not None}
        self.pngs = dict(zip(counts[0], pngs, strict=True))
        return summarise(self.counts)
