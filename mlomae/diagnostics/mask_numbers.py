"""What a sheet of masks shows, as numbers: a JSON file beside the picture, from which a figure can be drawn again.

The images go along, so that neither data set nor checkpoints are needed for that. Masks are one text a picture, "1"
where a patch is removed; weights are given where they differ.

Shape legend: B images, L patches, S image side in pixels.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mlomae.common.atomic import write_text
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True, eq=False)
class DrawnRow:
    """A strategy's masks, and by ``config_hash``, ``seed``, ``iteration`` of which model. ``grid``: rows, columns."""

    label: str
    config_hash: str
    seed: int
    iteration: int
    mask_BL: Tensor
    weight_BL: Tensor
    grid: tuple[int, int]

    @property
    def weighted(self) -> bool:
        return not torch.equal(self.weight_BL, torch.ones_like(self.weight_BL))


def mask_numbers(image_B3SS: Tensor, rows: list[DrawnRow], source: str, seed: int) -> dict[str, Any]:
    """The content of the file. ``source``: the images in words; ``seed``: of their choice and of the draws."""
    return {
        "source": source,
        "seed": seed,
        "images": [_png(image) for image in _pixels(image_B3SS)],
        "rows": [_row(row) for row in rows],
    }


def save_numbers(numbers: dict[str, Any], path: Path) -> None:
    """Write the file, all of it or nothing."""
    write_text(path, json.dumps(numbers, indent=1) + "\n")


def _row(row: DrawnRow) -> dict[str, Any]:
    weights = [[float(f"{w:.4g}") for w in weights] for weights in row.weight_BL.tolist()] if row.weighted else None
    return {
        "label": row.label,
        "config_hash": row.config_hash,
        "seed": row.seed,
        "iteration": row.iteration,
        "grid": list(row.grid),
        "mask": ["".join("1" if m > 0.5 else "0" for m in mask) for mask in row.mask_BL.tolist()],
        "weight": weights,
    }


def _pixels(image_B3SS: Tensor) -> Tensor:
    """Normalised images as bytes, (B, S, S, 3)."""
    std, mean = torch.tensor(IMAGENET_STD).view(3, 1, 1), torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    image_B3SS = (image_B3SS.detach().float().cpu() * std + mean).clamp(0, 1) * 255
    return image_B3SS.round().to(torch.uint8).permute(0, 2, 3, 1)


def _png(image_SS3: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(image_SS3.numpy()).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
