"""Which test images are drawn, and in which colours: a class has the same one in all pictures."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from mlomae.data import IGNORE

_GOLDEN = 0.6180339887498949  # steps of the golden ratio spread hues evenly for any number of classes


def palette(num_classes: int) -> NDArray[np.uint8]:
    """(256, 3) RGB, a colour a class; black where there is no label."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for i in range(min(num_classes, IGNORE)):
        hue, value = i * _GOLDEN % 1.0, (1.0, 0.75, 0.5)[i // 7 % 3]
        colours[i] = [round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.85, value)]
    return colours


def evenly_spaced(images: int, count: int) -> list[int]:
    """``count`` indices of 0..images-1 from the first one on, rising; all of them if ``count`` is larger."""
    return sorted({i * images // count for i in range(count)})
