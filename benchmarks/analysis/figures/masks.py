"""What each method removes from the same images (the paper's figure 5), from the files that `mlomae masks` writes.

Tiles are those of the sheet that `mlomae masks` draws, here as small as print allows; many methods are split into two
blocks, each below the images.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.analysis.figures.mask_file import MaskFile, read_masks
from benchmarks.analysis.figures.runs import Drawn, Inputs, NothingToDrawError
from benchmarks.analysis.figures.style import PAD, WIDTH, sheet, wrapped
from mlomae.diagnostics.pictures import mask_tiles

IMAGES = {1: 8, 2: 4}  # shown at most, by the number of blocks
TWO_BLOCKS = 9  # rows from which on there are two
NAME = {1: 1.5, 2: 1.4}  # inches of a name, by the number of blocks
GAP, BETWEEN = 0.04, 0.14  # inches between tiles, between blocks
LARGEST = 0.9  # inches of a tile
LINE = 0.135  # inches a line of a name


def draw(inputs: Inputs) -> list[Drawn]:
    """A figure a file: `masks` for one, `masks_NAME` where there are several. DataError for a file of a wrong form."""
    paths = sorted(inputs.masks.glob("*.json")) if inputs.masks.is_dir() else []
    if not paths:
        raise NothingToDrawError(
            f"no file is in '{inputs.masks}'; `mlomae masks CONFIGS --out {inputs.masks}/NAME.png` writes one"
        )
    drawn = []
    for path in paths:
        name = "masks" if len(paths) == 1 else f"masks_{path.stem}"
        drawn.append(Drawn(name, _figure(read_masks(path)), [f"{inputs.masks.name}/{path.name}"]))
    return drawn


def _figure(file: MaskFile) -> Figure:
    names, when = _names(file)
    blocks = 2 if len(names) >= TWO_BLOCKS else 1
    shown = min(len(file.image_B3SS), IMAGES[blocks])
    width = (WIDTH - 2 * PAD - BETWEEN * (blocks - 1)) / blocks
    tile = min(LARGEST, (width - NAME[blocks]) / shown - GAP)
    labels = [wrapped(name, 72 * NAME[blocks] - 6) for name in ["image", *names]]
    heights = [max(tile, LINE * len(lines)) + GAP for lines in labels]
    deep = -(-len(names) // blocks)
    members = [[0, *range(1 + b * deep, 1 + min((b + 1) * deep, len(names)))] for b in range(blocks)]
    caption = (
        f"The first {shown} of {len(file.image_B3SS)} images, " if shown < len(file.image_B3SS) else "Images: "
    ) + f"{file.source}, seed {file.seed}{when}. Grey: removed patches"
    caption += "; the darker, the more its error weighs." if file.weighted else "."
    figure, (bottom, top) = sheet(
        max(sum(heights[i] for i in rows) for rows in members), title="Masks on the same images", caption=caption
    )
    tiles = mask_tiles(file.image_B3SS[:shown], [(n, m[:shown], w[:shown], grid) for n, m, w, grid in file.rows])
    for block, rows in enumerate(members):
        left, total = PAD + block * (width + BETWEEN), figure.get_figheight()
        ax = figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, (top - bottom) / total))
        _block(ax, top - bottom, tiles[rows], [(labels[i], heights[i]) for i in rows], NAME[blocks], tile)
        ax.set(xlim=(0, width), ylim=(0, top - bottom))  # in inches
        ax.set_axis_off()
    return figure


def _names(file: MaskFile) -> tuple[list[str], str]:
    """Names of the rows, and the iteration of their masks as text if all rows share it."""
    labels = [label for label, *_ in file.rows]
    iterations = set(file.iterations)
    if len(iterations) > 1:
        return labels, ""
    (iteration,) = iterations
    ending = f", {iteration} iterations"
    return [label.removesuffix(ending) for label in labels], (
        f"; after {iteration:,} outer iterations" if iteration else "; as training begins"
    )


def _block(
    ax: Axes, top: float, tiles: NDArray[np.float64], rows: list[tuple[list[str], float]], name: float, tile: float
) -> None:
    """Rows from ``top`` down: the lines of a name, in ``name`` inches, and its tiles, (rows, images, S, S, 3)."""
    for pictures, (lines, height) in zip(tiles, rows, strict=True):
        top -= height
        middle = top + (height - GAP) / 2
        ax.text(name - 0.06, middle, "\n".join(lines), ha="right", va="center", linespacing=1.0)
        for column, picture in enumerate(pictures):
            left = name + column * (tile + GAP)
            extent = (left, left + tile, middle - tile / 2, middle + tile / 2)
            ax.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")
