"""The files of `mlomae masks`: images and what several strategies remove from them, read back with checks.

    {"source": text, "seed": int, "images": [base64 of a PNG, ...],
     "rows": [{"label": text, "config_hash": text, "iteration": int, "grid": [rows, columns],
               "mask": ["0101..." an image], "weight": [[number, ...] an image] or null}]}

Shape legend: B images, S image side in pixels, L patches.
"""

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mlomae.common.errors import DataError, reason_of
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD

Row = tuple[str, Tensor, Tensor, tuple[int, int]]  # label, mask (B, L), weight (B, L), grid


@dataclass(frozen=True, eq=False)
class MaskFile:
    """``image_B3SS`` is normalised; ``rows`` are what `mask_tiles` takes; ``iterations``: of the model of each row."""

    source: str
    seed: int
    image_B3SS: Tensor
    rows: list[Row]
    iterations: list[int]
    weighted: bool


def read_masks(path: Path) -> MaskFile:
    """Read and check a file; DataError, one line that names it, for anything that is not as the module says."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        images = torch.stack([_image(text) for text in values["images"]])
        rows = [_row(row, images) for row in values["rows"]]
        source, seed = values["source"], values["seed"]
        if not rows or not isinstance(source, str) or type(seed) is not int:
            raise ValueError("'rows' is empty, 'source' no text or 'seed' no integer")
    except KeyError as error:
        raise DataError(f"file of masks '{path.name}' lacks {error}; draw it again with `mlomae masks`") from error
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        reason = reason_of(error)[:120]
        raise DataError(f"file of masks '{path.name}' is damaged ({reason}); draw it again") from error
    iterations = [row["iteration"] for row in values["rows"]]
    return MaskFile(source, seed, images, rows, iterations, any(row["weight"] is not None for row in values["rows"]))


def _image(text: str) -> Tensor:
    picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    if pixels.shape[1] != pixels.shape[2]:
        raise ValueError("an image is not square")
    return (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def _row(row: dict[str, Any], image_B3SS: Tensor) -> Row:
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
    if not all(len(weights) == length and all(map(math.isfinite, weights)) for weights in row["weight"]):
        raise ValueError(f"row '{label}': 'weight' is not {count} lists of {length} finite numbers")
    weight_BL = torch.tensor(row["weight"], dtype=torch.float32)
    if weight_BL.shape != mask_BL.shape:
        raise ValueError(f"row '{label}': 'weight' is not {count} lists of {length} finite numbers")
    return label, mask_BL, weight_BL, (height, width)
