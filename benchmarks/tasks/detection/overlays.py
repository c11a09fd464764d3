"""Pictures of the ground truth and the detections of a test image: boxes, masks, classes, scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from benchmarks.transfer.pictures import palette
from mlomae.data.formats.coco_masks import encode
from mlomae.diagnostics.pictures import save_figure


def _panel(axes: Any, title: str, image_HWC: NDArray[Any], objects: list[dict[str, Any]], names: Sequence[str]) -> None:
    colours = palette(len(names))
    mixed = image_HWC.astype(np.float32)
    for thing in objects:
        mask_HW = coco_mask.decode(encode(thing["segmentation"], *image_HWC.shape[:2])).astype(bool)
        mixed[mask_HW] = 0.5 * mixed[mask_HW] + 0.5 * colours[thing["class"]]
    axes.imshow(mixed.astype(np.uint8), interpolation="nearest")
    for thing in objects:
        x, y, width, height = thing["bbox"]
        colour = colours[thing["class"]] / 255
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.2))
        score = f" {thing['score']:.2f}" if "score" in thing else ""
        label = {"color": "white", "backgroundcolor": (*colour, 0.8), "fontsize": 5, "verticalalignment": "bottom"}
        axes.text(x, y, f"{names[thing['class']]}{score}", **label, bbox={"pad": 0.5, "facecolor": colour, "lw": 0})
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()


def save_overlay(
    path: Path,
    image_HWC: NDArray[Any],
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
    names: Sequence[str],
) -> None:
    """Truth and detections side by side, as a PNG. An object has ``bbox`` (x, y, width, height in pixels), ``class``
    (index into ``names``), COCO's ``segmentation`` and, if detected, ``score``."""
    figure = Figure(figsize=(8, 4 * image_HWC.shape[0] / image_HWC.shape[1] + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _panel(left, "truth", image_HWC, truth, names)
    _panel(right, "detected", image_HWC, found, names)
    save_figure(figure, path)
