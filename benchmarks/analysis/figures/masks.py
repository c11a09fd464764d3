"""What each method removes from the same images (the paper's figure 5), from the files that `mlomae masks` writes.

    {"source": text, "seed": int, "images": [base64 of a PNG, ...],
     "rows": [{"label": text, "config_hash": text, "iteration": int, "grid": [rows, columns],
               "mask": ["0101..." per image], "weight": [[number, ...] per image] or null}]}

Tiles are those of the sheet that `mlomae masks` draws, here as small as print allows; many methods are split into two
blocks, each below the images.

Shape legend: B images, S image side in pixels, L patches.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import Drawn, NothingToDrawError
from benchmarks.analysis.figures.style import PAD, WIDTH, sheet, wrapped
from mlomae.common.errors import DataError, reason_of
from mlomae.common.files import read_json
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.diagnostics.pictures import MaskRow, mask_tiles

IMAGES = {1: 8, 2: 4}  # the most shown, by the number of blocks
TWO_BLOCKS = 9  # rows; with this many or more there are two blocks
NAME = {1: 1.5, 2: 1.4}  # width of the names in inches, by the number of blocks
GAP, BETWEEN = 0.04, 0.14  # inches between tiles, between blocks
LARGEST = 0.9  # inches of a tile
LINE = 0.135  # inches per line of a name


@dataclass(frozen=True, eq=False)
class MaskFile:
    """``image_B3SS`` is normalised; ``rows`` are what `mask_tiles` takes; ``iterations``: of the model of each row."""

    source: str
    seed: int
    image_B3SS: Tensor
    rows: list[MaskRow]
    iterations: list[int]
    weighted: bool


def draw(evidence: Evidence) -> list[Drawn]:
    """One figure per file: `masks` if there is one, else `masks_NAME`. DataError for a malformed file."""
    paths = sorted(evidence.masks.glob("*.json")) if evidence.masks.is_dir() else []
    if not paths:
        raise NothingToDrawError(
            f"no file is in '{evidence.masks}'; `mlomae masks CONFIGS --out {evidence.masks}/NAME.png` writes one"
        )
    drawn = []
    for path in paths:
        name = "masks" if len(paths) == 1 else f"masks_{path.stem}"
        drawn.append(Drawn(name, _figure(read_masks(path)), [f"{evidence.masks.name}/{path.name}"]))
    return drawn


def _figure(file: MaskFile) -> Figure:
    names, when = [label for label, *_ in file.rows], ""
    if len(set(file.iterations)) == 1:  # said once in the caption, not in each name
        iteration = file.iterations[0]
        names = [name.removesuffix(f", {iteration} iterations") for name in names]
        when = f"; after {iteration:,} outer iterations" if iteration else "; as training begins"
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
        upper = top - bottom
        for i in rows:  # from the top down: a name and its tiles
            upper -= heights[i]
            middle = upper + (heights[i] - GAP) / 2
            ax.text(NAME[blocks] - 0.06, middle, "\n".join(labels[i]), ha="right", va="center", linespacing=1.0)
            for column, picture in enumerate(tiles[i]):
                x = NAME[blocks] + column * (tile + GAP)
                extent = (x, x + tile, middle - tile / 2, middle + tile / 2)
                ax.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")
        ax.set(xlim=(0, width), ylim=(0, top - bottom))  # in inches
        ax.set_axis_off()
    return figure


# --- the files ------------------------------------------------------------------------------------------------------


def read_masks(path: Path) -> MaskFile:
    """Read and check a file; DataError, one line that names it, for anything that is not as the module says."""
    try:
        values = read_json(path)
        images = torch.stack([_image(text) for text in values["images"]])
        rows = [_row(row, images) for row in values["rows"]]
        source, seed = values["source"], values["seed"]
        if not rows or not isinstance(source, str) or type(seed) is not int:
            raise ValueError("'rows' is empty, 'source' is not text or 'seed' not an integer")
    except KeyError as error:
        raise DataError(f"file of masks '{path.name}' lacks {error}; draw it again with `mlomae masks`") from error
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        reason = reason_of(error)[:120]
        raise DataError(f"file of masks '{path.name}' is damaged ({reason}); draw it again") from error
    iterations = [row["iteration"] for row in values["rows"]]
    return MaskFile(source, seed, images, rows, iterations, any(row["weight"] is not None for row in values["rows"]))


def _image(text: str) -> Tensor:
    """A normalised image, (3, S, S)."""
    picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    if pixels.shape[1] != pixels.shape[2]:
        raise ValueError("an image is not square")
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def _row(row: dict[str, Any], image_B3SS: Tensor) -> MaskRow:
    count, side, label = len(image_B3SS), image_B3SS.shape[-1], row["label"]
    if not isinstance(label, str) or not label.strip() or not isinstance(row["config_hash"], str):
        raise ValueError("a row has no label or no config_hash")
    if type(row["iteration"]) is not int or row["iteration"] < 0:
        raise ValueError(f"row '{label}': 'iteration' is not a count")
    height, width = row["grid"]
    if not all(type(n) is int and n > 0 and side % n == 0 for n in (height, width)):
        raise ValueError(f"row '{label}': grid {row['grid']} does not divide images of {side} pixels")
    length = height * width
    masks = row["mask"]
    if len(masks) != count or not all(len(m) == length and set(m) <= {"0", "1"} for m in masks):
        raise ValueError(f"row '{label}': 'mask' is not {count} texts of {length} zeros and ones")
    mask_BL = torch.tensor([[float(m) for m in text] for text in masks])
    if row["weight"] is None:
        return label, mask_BL, torch.ones_like(mask_BL), (height, width)
    weight_BL = torch.tensor(row["weight"], dtype=torch.float32)
    if weight_BL.shape != mask_BL.shape or not weight_BL.isfinite().all():
        raise ValueError(f"row '{label}': 'weight' is not {count} lists of {length} finite numbers")
    return label, mask_BL, weight_BL, (height, width)
