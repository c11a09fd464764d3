"""The recipe by which `mlomae classify` fine-tunes on a folder: a function of what is in it, the weights, the device.

| chosen | rule |
|---|---|
| image size | that of the weights (224 where they do not tell), so that no position is interpolated |
| epochs | 100 up to 1,000 training images, 50 up to 10,000, 20 beyond |
| batch size | the largest power of two that gives an epoch 8 steps, within 8 to 32, on a GPU to 256 |
| learning rate | 1e-3 for a width below 384, else 5e-4, times the square root of (batch size / 64) |
| layer decay | 0.75, for a width of 768 and above 0.65, as MAE fine-tunes |
| augmentation | random crops of 35 % of the image and more, flips; from 10,000 images and 96 pixels that of MAE: |
| | RandAugment, erasing, mixup and cutmix, drop path 0.1 |
| normalisation | by the mean and std of the weights where they tell, as timm's and Hugging Face's do, else ImageNet's |
| evaluation | the centre: the whole shorter side up to 64 pixels, else 87.5 % of it |
| precision | bf16 where it is computed in hardware |
| seen before | held-out images among those of the pretraining are counted, not refused: it had no labels of a heap |
| held out | the folder `test` or `val`; without one a fifth of each class, by the digests of the files |
| near copies | of such a fifth in training are counted, not refused: a user's own photos are often taken in series |

AdamW, label smoothing 0.1, a warm-up of a tenth of the run, then a cosine: as in `configs/_base_/finetune.py`.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from mlomae.common.system import usable_cores
from mlomae.data.found import Found

LARGE = 10_000
_SMALL_SIDE = 64


@dataclass(frozen=True)
class Backbone:
    """What the recipe depends on of the weights; ``img_size`` in pixels, ``pixels``: the mean and std of the images
    that they were trained on, where they say so."""

    weights: str
    img_size: int
    embed_dim: int
    pixels: dict[str, list[float]] = field(default_factory=dict)


def batch_size_for(images: int, gpu: bool) -> int:
    """See the table above; even, and at most the number of ``images`` if that is 2 or more."""
    wanted = 2 ** int(math.log2(max(1, images // 8)))
    size = min(max(wanted, 8), 256 if gpu else 32)
    return min(size, max(2, images // 2 * 2))


def epochs_for(images: int) -> int:
    return 100 if images <= 1_000 else 50 if images <= LARGE else 20


def choose_recipe(found: Found, images: int, backbone: Backbone, gpu: bool, name: str, seed: int = 0) -> dict[str, Any]:
    """The values of a `mlomae.classification.config.ClassificationConfig`.

    ``found``: with classes and held-out images. ``images``: how many of them are trained on.
    """
    batch, wide, large = batch_size_for(images, gpu), backbone.embed_dim >= 384, images >= LARGE
    strong = large and backbone.img_size >= 96
    steps = epochs_for(images) * max(1, images // batch)
    augment: dict[str, Any] = {"type": "rand_augment"} if strong else {"type": "crop_flip", "scale": [0.35, 1.0]}
    data: dict[str, Any] = {
        "train": found.train,
        "test": found.held_out,
        "augment": {**augment, **backbone.pixels},
        "evaluate": {"crop_pct": 1.0 if backbone.img_size <= _SMALL_SIDE else 0.875, **backbone.pixels},
        "mix": {"mixup": 0.8, "cutmix": 1.0} if strong else None,
        "batch_size": batch,
        "allow_seen": True,
        "reduced_decoding": True,
        "num_workers": min(8, usable_cores()) if gpu or usable_cores() > 4 else 0,
    }
    if found.kind == "classes":
        data["allow_near_copies"] = True
    rate = (5e-4 if wide else 1e-3) * math.sqrt(batch / 64)
    return {
        "name": name,
        "protocol": "finetune",
        "seed": seed,
        "backbone": {"weights": backbone.weights, "img_size": backbone.img_size, "drop_path": 0.1 if strong else 0.0},
        "data": data,
        "optim": {
            "lr": float(f"{rate:.2g}"),
            "layer_decay": 0.65 if backbone.embed_dim >= 768 else 0.75,
            "warmup": 0.1,
        },
        "train": {
            "epochs": epochs_for(images),
            "label_smoothing": 0.1,
            "log_interval": max(1, min(50, steps // 20)),
            "checkpoint_interval": max(1, min(500, steps)),
            "keep_checkpoints": 1,
        },
    }
