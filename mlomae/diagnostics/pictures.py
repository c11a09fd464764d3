"""Sheets of images: the influence of their patches, or the masks of several strategies.

The influence sheet has a column for each image, and the rows image, mask, influence of the removed patches, and σ where
there is one. Red patches are those whose reconstruction, if weighted more, lowers the upper loss; blue ones raise it;
kept patches are grey; of scores and weights the darker one is the higher. Objects, where known, are outlined.

Shape legend: B images of the sheet, S side in pixels, L patches.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.atomic import replacing
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD

TILE = 1.3  # inches per tile, 130 pixels
LEFT, RIGHT, TOP, GAP = 1.0, 1.1, 0.45, 0.06  # inches: row labels, colour bars, title, between tiles
OUTLINE = "#ffd500"
KEPT = 0.5  # grey of the kept patches in the rows of mask and influence
REMOVED, LEAST, MOST = 0.6, 0.85, 0.3  # grey of removed patches: of equal weights; of the lowest and highest weight
GREYS = LinearSegmentedColormap.from_list("weights", [(LEAST,) * 3, (MOST,) * 3])
"""Of weights and scores alike: the darker patch has the higher one."""
NAME = 22  # letters of a file's name that fit above a tile
LABEL = 17  # letters of a row's label that fit next to a tile
MaskRow = tuple[str, Tensor, Tensor, tuple[int, int]]  # label, mask (B, L), weight (B, L), grid


def influence_sheet(
    image_B3SS: Tensor,
    mask_BL: Tensor,
    influence_BL: Tensor,
    grid: tuple[int, int],
    *,
    sigma_BL: Tensor | None = None,
    object_BSS: Tensor | None = None,
    title: str = "",
    names: Sequence[str] = (),
) -> Figure:
    """A figure of B columns and three or four rows; draw six to eight images.

    Args:
        image_B3SS: normalised images.
        mask_BL: 1 where a patch is removed.
        influence_BL: in any unit; the colours span ± the 95th percentile of its size on the removed patches shown.
        grid: patch rows and columns.
        sigma_BL: scores inside (0, 1), drawn from their least to their largest.
        object_BSS: bool, pixels of objects.
        names: of the files, the columns' headings.
    """
    images = photographs(image_B3SS)
    side, removed, influence = images.shape[1], _tiles(mask_BL, grid) > 0, _tiles(influence_BL, grid)
    sizes = np.abs(influence[removed])
    limit = float(np.quantile(sizes, 0.95)) if sizes.any() else 1.0
    scale = Normalize(-limit, limit)
    heat = _enlarge(_heat(influence, removed, scale), side)
    dim = 0.6 * images.mean(axis=-1, keepdims=True)
    rows = [
        ("image", images),
        ("mask\n(grey: kept)", _enlarge(np.where(removed, 0.1, KEPT)[..., None].repeat(3, axis=-1), side)),
        ("influence\n(grey: kept)", dim + heat[..., 3:] * (heat[..., :3] - dim)),
    ]
    bars = [(ScalarMappable(scale, "RdBu_r"), "+ : weight lowers loss III", "both")]
    if sigma_BL is not None:
        sigma = _tiles(sigma_BL, grid)
        colours = ScalarMappable(Normalize(float(sigma.min()), float(sigma.max())), GREYS)
        rows.append(("score sigma", _enlarge(np.asarray(colours.cmap(colours.norm(sigma))), side)))
        bars.append((colours, "sigma", "neither"))
    figure, axes = _sheet(rows, title, RIGHT, names)
    _outline(axes, object_BSS)
    for ax, (colours, label, extend) in zip(axes[2:, -1], bars, strict=True):
        _add_bar(figure, ax, colours, label, extend)
    return figure


def mask_sheet(
    image_B3SS: Tensor,
    rows: list[MaskRow],
    *,
    object_BSS: Tensor | None = None,
    title: str = "",
    names: Sequence[str] = (),
) -> Figure:
    """A figure of B columns: the images, then what each strategy leaves of them, with a bar of the weights where they
    differ; arguments as `mask_tiles` and `influence_sheet`."""
    labels = [textwrap.fill(label, LABEL) for label in ("image", *(label for label, *_ in rows))]
    spans = [_span(mask_BL, weight_BL) for _, mask_BL, weight_BL, _ in rows]
    tiles = list(zip(labels, mask_tiles(image_B3SS, rows), strict=True))
    figure, axes = _sheet(tiles, title, RIGHT if any(spans) else GAP, names)
    _outline(axes, object_BSS)
    for ax, span in zip(axes[1:, -1], spans, strict=True):
        if span is not None:
            _add_bar(figure, ax, ScalarMappable(Normalize(*span), GREYS), "weight in the loss", "neither")
    return figure


def mask_tiles(image_B3SS: Tensor, rows: list[MaskRow]) -> NDArray[np.float64]:
    """RGB in [0, 1], (1 + rows, B, S, S, 3): the images, then what each strategy leaves of them, removed patches grey.

    Args:
        image_B3SS: normalised images.
        rows: label, mask (B, L) with 1 where a patch is removed, the weights (B, L) of the patches' errors, and the
            grid of patches. Where weights differ, the darker patch weighs more; white to dark spans the row.
    """
    images = photographs(image_B3SS)
    side = images.shape[1]
    tiles = [images.astype(np.float64)]
    for _, mask_BL, weight_BL, grid in rows:
        removed, weight = _tiles(mask_BL, grid) > 0, _tiles(weight_BL, grid)
        grey = np.full_like(weight, REMOVED)
        if (span := _span(mask_BL, weight_BL)) is not None:
            grey = LEAST + (MOST - LEAST) * (weight - span[0]) / (span[1] - span[0])
        tiles.append(np.where(_enlarge(removed[..., None], side), _enlarge(grey[..., None], side), images))
    return np.stack(tiles)


def _span(mask_BL: Tensor, weight_BL: Tensor) -> tuple[float, float] | None:
    """The least and the largest weight of the removed patches; None if they are equal."""
    weights = weight_BL[mask_BL > 0].detach().double().cpu().numpy()
    low, high = float(weights.min()), float(weights.max())
    return None if high - low <= 1e-6 * np.abs(weights).max() else (low, high)


def _outline(axes: NDArray[np.object_], object_BSS: Tensor | None) -> None:
    """Outline the objects of each column in all rows; nothing where objects are unknown."""
    for row, column in np.ndindex(axes.shape) if object_BSS is not None else ():
        objects = object_BSS[column].cpu().numpy()  # type: ignore[index]
        if objects.any() and not objects.all():  # else they have no border
            axes[row, column].contour(objects.astype(float), levels=[0.5], colors=OUTLINE, linewidths=1.3)


def _add_bar(figure: Figure, ax: Any, colours: ScalarMappable, label: str, extend: str) -> None:
    """A colour bar to the right of the last tile of a row."""
    box, width = ax.get_position(), figure.get_figwidth()
    place = (box.x1 + 0.1 / width, box.y0 + 0.03 * box.height, 0.12 / width, 0.94 * box.height)
    bar = figure.colorbar(colours, cax=figure.add_axes(place), extend=extend)
    bar.ax.tick_params(labelsize=7)
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.set_label(label, fontsize=7)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG of 100 pixels per inch under a temporary name and rename it; the same figure gives the same bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def photographs(image_B3SS: Tensor) -> NDArray[np.float32]:
    """Normalised images back as RGB, (B, S, S, 3), in [0, 1]."""
    std, mean = torch.tensor(IMAGENET_STD).view(3, 1, 1), torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    return (image_B3SS.detach().float().cpu() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _tiles(values_BL: Tensor, grid: tuple[int, int]) -> NDArray[np.float64]:
    return values_BL.detach().double().cpu().reshape(-1, *grid).numpy()


def _enlarge(tiles: NDArray[Any], side: int) -> NDArray[Any]:
    """(B, rows, columns, colours) of patches as (B, side, side, colours) of pixels."""
    _, rows, columns, _ = tiles.shape
    return tiles.repeat(side // rows, axis=1).repeat(side // columns, axis=2)


def _heat(influence: NDArray[np.float64], removed: NDArray[np.bool_], scale: Normalize) -> NDArray[np.float64]:
    """Red for positive, blue for negative, white for 0; kept patches are grey. RGBA, slightly transparent."""
    colours = np.asarray(matplotlib.colormaps["RdBu_r"](scale(influence)))
    colours[..., 3] = 0.8
    colours[~removed] = (KEPT, KEPT, KEPT, 0.9)
    return colours


def _sheet(
    rows: Sequence[tuple[str, NDArray[Any]]], title: str, right: float, names: Sequence[str]
) -> tuple[Figure, NDArray[np.object_]]:
    """Labelled rows of B tiles (B, S, S, colours), ``names`` above the first, with ``right`` inches to their right; the
    figure and its axes."""
    columns = len(rows[0][1])
    width, height = LEFT + columns * (TILE + GAP) + right, TOP + len(rows) * (TILE + GAP)
    figure = Figure(figsize=(width, height))
    figure.text(LEFT / width, 1 - 0.5 * TOP / height, title, va="center", fontsize=10)
    across = {"left": LEFT / width, "right": 1 - (right + GAP) / width, "wspace": GAP / TILE}
    down = {"bottom": GAP / height, "top": 1 - TOP / height, "hspace": GAP / TILE}
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=across | down)
    for row, (label, tiles) in enumerate(rows):
        axes[row, 0].set_ylabel(label, fontsize=9)
        for ax, tile in zip(axes[row], tiles, strict=True):
            ax.imshow(tile, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
    for ax, name in zip(axes[0], names, strict=False):
        ax.set_title(name if len(name) <= NAME else f"…{name[1 - NAME :]}", fontsize=7, pad=2)
    return figure, axes
