"""Pictures of test images: their selection, the colours of classes, and overlays of label maps."""

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlomae.common.atomic import replacing
from mlomae.data import IGNORE

_GAP = 4  # pixels between the parts of a picture
_GOLDEN = 0.6180339887498949  # steps of the golden ratio spread hues evenly for any number of classes


def palette(num_classes: int) -> NDArray[np.uint8]:
    """(256, 3) RGB: one colour for each class, black for pixels without a label."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for i in range(min(num_classes, IGNORE)):
        hue, value = i * _GOLDEN % 1.0, (1.0, 0.75, 0.5)[i // 7 % 3]
        colours[i] = [round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.85, value)]
    return colours


def evenly_spaced(images: int, count: int) -> list[int]:
    """``count`` indices of 0..images-1 from the first one on, rising; all of them if ``count`` is larger."""
    return sorted({i * images // count for i in range(count)})


def overlay(image_HWC: NDArray[Any], labels_HW: NDArray[Any], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image blended with the colours of its labels; unlabelled pixels are dark."""
    mixed: NDArray[np.uint8] = (0.4 * image_HWC + 0.6 * colours[labels_HW]).astype(np.uint8)
    return mixed


def save_overlay(
    path: Path, image_HWC: NDArray[Any], true_HW: NDArray[Any], predicted_HW: NDArray[Any], num_classes: int
) -> None:
    """Image, labels and prediction side by side, as a PNG; small images are enlarged."""
    colours = palette(num_classes)
    gap = np.full((image_HWC.shape[0], _GAP, 3), 255, dtype=np.uint8)
    parts = [image_HWC, gap, overlay(image_HWC, true_HW, colours), gap, overlay(image_HWC, predicted_HW, colours)]
    picture = Image.fromarray(np.concatenate(parts, axis=1))
    factor = max(1, 256 // image_HWC.shape[0])
    enlarged = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    with replacing(path) as temporary:
        enlarged.save(temporary, format="PNG")
