"""Pictures of a test image beside its labels and its prediction, in colours that stay the same for a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.transfer.pictures import palette
from mlomae.common.atomic import replacing

_GAP = 4


def overlay(image_HWC: NDArray[Any], labels_HW: NDArray[Any], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image under its labels' colours; unlabelled pixels are dark."""
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
