"""RoIAlign and non-maximum suppression in plain Python, from their definitions; shape suffixes as in `mmcv_ext`.

RoIAlign (He et al., Mask R-CNN, ICCV 2017, section 3): the mean of bilinear values at regular points, unrounded.
"""

import math

import numpy as np
from torch import Tensor


def bilinear(feature_HW: Tensor, y: float, x: float) -> float:
    """The value between the four neighbours; up to one pixel outside that of the border, beyond it 0."""
    height, width = feature_HW.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    corners = [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]
    return sum(
        (1 - abs(y - v)) * (1 - abs(x - u)) * float(feature_HW[v, u]) for v, u in corners if v < height and u < width
    )


def samples(low: float, high: float, bins: int, sampling_ratio: int, aligned: bool) -> list[list[float]]:
    """One axis: the coordinates of the samples of each bin of a box from ``low`` to ``high``."""
    length = high - low
    if not aligned:
        length = max(length, 1.0)
    step = length / bins
    count = sampling_ratio or max(0, math.ceil(step))
    return [[low + p * step + (i + 0.5) * step / count for i in range(count)] for p in range(bins)]


def sample_grid(
    box: Tensor, bins: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> tuple[list[list[float]], list[list[float]]]:
    x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0.0) for value in box.tolist())
    return samples(y1, y2, bins[0], ratio, aligned), samples(x1, x2, bins[1], ratio, aligned)


def plain_roi_align(
    features_BCHW: Tensor, rois_R5: Tensor, bins: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    out = features_BCHW.new_zeros(len(rois_R5), features_BCHW.shape[1], *bins)
    for r, roi in enumerate(rois_R5):
        rows, columns = sample_grid(roi[1:], bins, scale, ratio, aligned)
        for c, feature_HW in enumerate(features_BCHW[int(roi[0])]):
            for p, q in np.ndindex(bins):
                values = [bilinear(feature_HW, y, x) for y in rows[p] for x in columns[q]]
                out[r, c, p, q] = sum(values) / max(len(values), 1)
    return out


def plain_nms(boxes: list[tuple[float, ...]], scores: list[float], threshold: float, offset: int) -> list[int]:
    def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        area_a, area_b = ((x2 - x1 + offset) * (y2 - y1 + offset) for x1, y1, x2, y2 in (a, b))
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
        union = area_a + area_b - width * height
        return width * height / union if union else 0.0

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # stable: of equal scores the first comes first
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept
