"""Sheets of images: the influence of their patches, or the masks of several strategies.

The influence sheet has a column for each image, and the rows image, mask, influence of the removed patches, and σ where
there is one. Red patches are those whose reconstruction, if weighted more, lowers the upper loss; blue ones raise it;
kept patches are grey. Objects, where known, are outlined.

Shape legend: B images of the sheet, S side in pixels, L patches.
"""

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.atomic import replacing
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD

TILE = 1.3  # inches a tile, 130 pixels
LEFT, RIGHT, TOP, GAP = 1.0, 1.1, 0.45, 0.06  # inches: row labels, colour bars, title, between tiles
OUTLINE = "#ffd500"
KEPT = 0.5  # grey of the kept patches in the rows of mask and influence
REMOVED, LEAST, MOST = 0.6, 0.85, 0.3  # grey of removed patches: of equal weights; of the lowest and highest weight
LABEL = 17  # letters of a row's label that fit beside a tile


def influence_sheet(
    image_B3SS: Tensor,
    mask_BL: Tensor,
    influence_BL: Tensor,
    grid: tuple[int, int],
    *,
    sigma_BL: Tensor | None = None,
    object_BSS: Tensor | None = None,
    title: str = "",
) -> Figure:
    """A figure of B columns and three or four rows; draw six to eight images.

    Args:
        image_B3SS: normalised images.
        mask_BL: 1 where a patch is removed.
        influence_BL: in any unit; the colours span ± the 95th percentile of its size on the removed patches shown.
        grid: patch rows and columns.
        sigma_BL: scores inside (0, 1), drawn from their least to their largest.
        object_BSS: bool, pixels of objects.
    """
    images = photographs(image_B3SS)
    removed = _tiles(mask_BL, grid) > 0
    influence = _tiles(influence_BL, grid)
    sizes = np.abs(influence[removed])
    limit = float(np.quantile(sizes, 0.95)) if sizes.any() else 1.0
    scale = Normalize(-limit, limit)
    rows = ["image", "mask\n(grey: kept)", "influence\n(grey: kept)"] + ([] if sigma_BL is None else ["score sigma"])
    figure, axes = _canvas(len(images), rows, title)
    for column, image in enumerate(images):
        side = image.shape[0]
        edge = (-0.5, side - 0.5, side - 0.5, -0.5)
        paint = lambda ax, rgba, edge=edge: ax.imshow(rgba, extent=edge, interpolation="nearest")  # noqa: E731
        axes[0, column].imshow(image, interpolation="nearest")
        paint(axes[1, column], np.where(removed[column], 0.1, KEPT)[..., None].repeat(3, axis=-1))
        axes[2, column].imshow(0.6 * image.mean(axis=-1, keepdims=True).repeat(3, axis=-1), interpolation="nearest")
        paint(axes[2, column], _heat(influence[column], removed[column], scale))
        if sigma_BL is not None:
            sigma = _tiles(sigma_BL, grid)
            spread = Normalize(float(sigma.min()), float(sigma.max()))
            paint(axes[3, column], matplotlib.colormaps["viridis"](spread(sigma[column])))
        if object_BSS is not None:
            for ax in axes[:, column]:
                _outline(ax, object_BSS[column].cpu().numpy())
    _bar(figure, axes[2, -1], ScalarMappable(scale, "RdBu_r"), "+ : weight lowers loss III", "both")
    if sigma_BL is not None:
        _bar(figure, axes[3, -1], ScalarMappable(spread, "viridis"), "sigma")
    return figure


def mask_sheet(
    image_B3SS: Tensor,
    rows: list[tuple[str, Tensor, Tensor, tuple[int, int]]],
    *,
    title: str = "",
) -> Figure:
    """A figure of B columns: the images, then what each strategy leaves of them; arguments as `mask_tiles`."""
    tiles = mask_tiles(image_B3SS, rows)
    labels = ["image", *(label for label, *_ in rows)]
    figure, axes = _canvas(len(image_B3SS), [textwrap.fill(label, LABEL) for label in labels], title, right=GAP)
    for place in np.ndindex(axes.shape):
        axes[place].imshow(tiles[place], interpolation="nearest")
    return figure


def mask_tiles(image_B3SS: Tensor, rows: list[tuple[str, Tensor, Tensor, tuple[int, int]]]) -> NDArray[np.float64]:
    """RGB in [0, 1], (1 + rows, B, S, S, 3): the images, then what each strategy leaves of them, removed patches grey.

    Args:
        image_B3SS: normalised images.
        rows: label, mask (B, L) with 1 where a patch is removed, the weights (B, L) of the patches' errors, and the
            grid of patches. Where weights differ, the darker patch weighs more; white to dark spans the row.
    """
    images = photographs(image_B3SS)
    side = images.shape[1]
    tiles = [images.astype(np.float64)]
    for _, mask_BL, weight_BL, (height, width) in rows:
        grey = _greys(_tiles(mask_BL, (height, width)) > 0, _tiles(weight_BL, (height, width)))
        shade = np.repeat(np.repeat(grey, side // height, axis=1), side // width, axis=2)[..., None]
        tiles.append(np.where(np.isnan(shade), images, shade))
    return np.stack(tiles)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG of 100 pixels an inch under a temporary name and rename it; the same figure gives the same bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def photographs(image_B3SS: Tensor) -> NDArray[np.float32]:
    """Normalised images as they look, (B, S, S, 3), in [0, 1]."""
    std, mean = torch.tensor(IMAGENET_STD).view(3, 1, 1), torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    return (image_B3SS.detach().float().cpu() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _tiles(values_BL: Tensor, grid: tuple[int, int]) -> NDArray[np.float64]:
    return values_BL.detach().double().cpu().reshape(-1, *grid).numpy()


def _greys(removed: NDArray[np.bool_], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """The grey of removed patches, NaN where a patch is kept."""
    weights = weight[removed]
    span = np.ptp(weights)
    equal = span <= 1e-6 * np.abs(weights).max()
    grey = REMOVED if equal else LEAST + (MOST - LEAST) * (weight - weights.min()) / span
    return np.where(removed, grey, np.nan)


def _heat(influence: NDArray[np.float64], removed: NDArray[np.bool_], scale: Normalize) -> NDArray[np.float64]:
    """Red for positive, blue for negative, white for none, half transparent on kept patches, which are grey."""
    colours = np.asarray(matplotlib.colormaps["RdBu_r"](scale(influence)))
    colours[..., 3] = 0.8
    colours[~removed] = (KEPT, KEPT, KEPT, 0.9)
    return colours


def _canvas(columns: int, rows: list[str], title: str, right: float = RIGHT) -> tuple[Figure, NDArray[np.object_]]:
    width = LEFT + columns * (TILE + GAP) + right
    height = TOP + len(rows) * (TILE + GAP)
    figure = Figure(figsize=(width, height))
    figure.text(LEFT / width, 1 - 0.5 * TOP / height, title, va="center", fontsize=10)
    axes = np.empty((len(rows), columns), dtype=object)
    for row, label in enumerate(rows):
        bottom = height - TOP - (row + 1) * (TILE + GAP) + GAP
        for column in range(columns):
            left = LEFT + column * (TILE + GAP)
            ax = figure.add_axes((left / width, bottom / height, TILE / width, TILE / height))
            ax.set(xticks=[], yticks=[])
            axes[row, column] = ax
        axes[row, 0].set_ylabel(label, fontsize=9)
    return figure, axes


def _outline(ax: Axes, objects: NDArray[np.bool_]) -> None:
    """The border of the objects; an image without one, or filled by one, has none."""
    if objects.any() and not objects.all():
        ax.contour(objects.astype(float), levels=[0.5], colors=OUTLINE, linewidths=1.3)


def _bar(figure: Figure, ax: Axes, colours: ScalarMappable, label: str, extend: str = "neither") -> None:
    box = ax.get_position()
    width = figure.get_figwidth()
    place = figure.add_axes((box.x1 + 0.1 / width, box.y0 + 0.03 * box.height, 0.12 / width, 0.94 * box.height))
    bar = figure.colorbar(colours, cax=place, extend=extend)
    bar.ax.tick_params(labelsize=7)
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.set_label(label, fontsize=7)
