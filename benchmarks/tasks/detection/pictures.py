"""Pictures of objects in images: every instance in a colour of its own, with its class and score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from benchmarks.transfer.dense import palette
from mlomae.data.formats.coco_masks import encode
from mlomae.diagnostics.pictures import save_figure

SHOWN = 20  # instances in a legend, those of the highest scores
COLOURS = 60  # before they come again


def name_of(thing: dict[str, Any], names: Sequence[str]) -> str:
    """Its class, and its score if it was detected."""
    score = f" {thing['score']:.2f}" if "score" in thing else ""
    return f"{names[thing['class']]}{score}".replace("$", r"\$")


def panel(
    axes: Any, title: str, image_HWC: NDArray[Any], objects: Sequence[dict[str, Any]], names: Sequence[str]
) -> list[Patch]:
    """Draw the image with its objects, later ones on top; entries of a legend, one for each instance.

    An object has ``bbox`` (x, y, width, height in pixels), ``class`` (index into ``names``), COCO's ``segmentation``
    and, if detected, ``score``.
    """
    colours = palette(COLOURS)[np.arange(len(objects)) % COLOURS] / 255
    mixed = image_HWC.astype(np.float32)
    for thing, colour in zip(objects, colours, strict=True):
        mask_HW = coco_mask.decode(encode(thing["segmentation"], *image_HWC.shape[:2])).astype(bool)
        mixed[mask_HW] = 0.5 * mixed[mask_HW] + 0.5 * 255 * colour
    axes.imshow(mixed.astype(np.uint8), interpolation="nearest")
    handles = []
    for thing, colour in zip(objects, colours, strict=True):
        x, y, width, height = thing["bbox"]
        text = name_of(thing, names)
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.2))
        letters = "black" if colour @ (0.3, 0.59, 0.11) > 0.55 else "white"  # by its brightness
        label = {"color": letters, "backgroundcolor": (*colour, 0.8), "fontsize": 5, "verticalalignment": "bottom"}
        axes.text(x, y, text, **label, bbox={"pad": 0.5, "facecolor": colour, "lw": 0})
        handles.append(Patch(color=colour, label=text))
    axes.set_title(title.replace("$", r"\$"), fontsize=7)
    axes.set_axis_off()
    return handles[::-1][:SHOWN]


def save_overlay(
    path: Path,
    image_HWC: NDArray[Any],
    truth: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    names: Sequence[str],
    threshold: float,
) -> None:
    """Truth and the detections above the ``threshold`` side by side, as a PNG; objects as in `panel`."""
    save_figure(_sheet(image_HWC, [("truth", truth), (_above(threshold), found)], names), path)


def save_found(
    path: Path, image_HWC: NDArray[Any], found: Sequence[dict[str, Any]], names: Sequence[str], threshold: float
) -> None:
    """The image, and what was detected in it, as a PNG."""
    title = Path(path).stem
    save_figure(_sheet(image_HWC, [(title, []), (_above(threshold), found)], names), path)


def _above(threshold: float) -> str:
    return f"detected with a score of {threshold:g} or more"


def _sheet(image_HWC: NDArray[Any], parts: Sequence[tuple[str, Any]], names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(9, 4 * image_HWC.shape[0] / image_HWC.shape[1] + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    handles: list[Patch] = []
    for axes, (title, objects) in zip(figure.subplots(1, len(parts)), parts, strict=True):
        handles = panel(axes, title, image_HWC, objects, names)
    if handles:
        figure.legend(handles=handles, loc="outside right upper", fontsize=6)
    return figure
