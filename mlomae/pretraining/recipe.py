"""The recipe of a pretraining on a folder of images, from what it holds and the device: `mlomae pretrain --data
FOLDER`.

The rules, so that a choice can be foreseen and changed (s: median of the shorter sides in pixels, N: training
images):

- **Image size.** 32 pixels for s < 48, 64 for s < 96; for larger images 96 on a CPU, on a GPU 96 for s < 160 and
  224 else.
- **Model.** On a CPU the ViT of the configs that ship, 128 wide and 4 deep, with 64 patches an image. On a GPU
  ViT-S, from 100,000 images on ViT-B; patches of 16 pixels at 224, else 8, and 4 at 32.
- **Batch.** 64 on a CPU and 256 on a GPU, but half of N at most. The rate is 2e-3 at 64 images on a CPU, MAE's
  2.4e-3 at 4,096 on a GPU, and follows the root of the batch.
- **Length.** N is seen 400 times (800 times on a GPU below 10,000), 25,600 images at least, 256,000 at most on a
  CPU and 40 million on a GPU. Two steps of the autoencoder are one iteration.
- **Method.** "mae": random masks that remove 75 %. "learned": the mask is learned from the labels as in
  configs/pretrain/mlomae-pooled_*.py; it holds a fifth of the training images back for the upper level.
- **Evaluation.** k-NN and linear probe where there are labels, on images that are never trained on.
"""

from dataclasses import dataclass
from typing import Any

from mlomae.common.errors import ConfigError, DataError
from mlomae.common.system import usable_cores
from mlomae.data.found import Found
from mlomae.records import slug

METHODS = {"mae": "MAE", "learned": "MLO-MAE (nca, mask pooling)"}
SMALL = {"embed_dim": 128, "depth": 4, "num_heads": 4}
DECODERS = {"tiny": (64, 1, 2), "small": (256, 4, 8), "base": (512, 8, 16)}
FEW = 100  # images below which a user should know that little will be learned


@dataclass(frozen=True)
class Recipe:
    """``values`` of a config file, and the ``reason`` for them, a phrase."""

    values: dict[str, Any]
    reason: str


def choose_recipe(found: Found, method: str = "mae", gpu: bool = False) -> Recipe:
    """The recipe for the images ``found``, by the rules of the module docstring.

    ``gpu``: whether there is one. Raises ConfigError for an unknown method or one that needs labels where there are
    none, DataError for fewer than two images.
    """
    if method not in METHODS:
        raise ConfigError(f"--method must be one of {', '.join(METHODS)}; got '{method}'")
    if found.total < 2:
        raise DataError(f"images: {found.root} has one image, and pretraining needs two at least; add some")
    learned = method == "learned"
    if learned and not found.classes:
        raise ConfigError(
            f"--method learned learns the mask from labels, and {found.root} has none; sort its images into a folder "
            "for each class, or leave --method out"
        )
    count = found.images.get("train") or round(found.total * (0.8 if found.held_out else 1.0))
    size, patch = _sizes(found.side, gpu)
    kind = ("base" if count >= 100_000 else "small") if gpu else "tiny"
    batch = _power_of_two(min(256 if gpu else 64, max(2, count // 2)))
    rate = 2.4e-3 * (batch / 4096) ** 0.5 if gpu else 2e-3 * (batch / 64) ** 0.5
    passes = 800 if gpu and count < 10_000 else 400
    images = min(max(passes * count, 25_600), 40_000_000 if gpu else 256_000)
    iterations = -(-images // (2 * batch))
    width, depth, heads = DECODERS[kind]
    augment = {"type": "RandomResizedCropFlip", **({"reduced_decoding": True} if found.side >= 4 * size else {})}
    data: dict[str, Any] = {
        "train": found.train,
        "eval": found.held_out,
        "augment": augment,
        "batch_size": batch,
        # without feedback the second part of the split is left alone: one image of each class
        "val_fraction": 0.2 if learned else 0.001,
        "num_workers": min(16, usable_cores() - 1) if gpu else usable_cores() // 2,
        "probe_limit": 5000,
    }
    if found.held_out and found.kind == "classes":  # a user's own photos are often taken in series
        data["allow_near_copies"] = True
    optim: dict[str, Any] = {"theta": {"lr": float(f"{rate:.2g}")}}
    if not gpu:  # at this rate a short run with the usual warm-up of 5 % stays on a plateau
        optim["theta"]["warmup"] = 0.2
    mask: dict[str, Any] = {"type": "random", "ratio": 0.75}
    more: dict[str, Any] = {"levels": {"lower_steps": 2}}
    if learned:
        data |= {
            "feedback_augment": {"type": "PadCropFlip", "padding": 0},
            "feedback_batch_size": _power_of_two(max(2, min(256, max(64, 2 * len(found.classes)), count // 5))),
        }
        mask |= {"type": "learned", "arch": "token", "sampling": "random", "scale": 2.0, "normalize": "mask"}
        solver = {"solver": "explicit", "mask_pooling": True, "upper_every": 5}
        more = {
            "feedback": {"type": "nca", "temperature": 0.1, "pooling": "avg"},
            "levels": {**more["levels"], **solver},
        }
        optim["phi"] = {"lr": 3e-3, "betas": [0.9, 0.99]}
    part = max(1, iterations // 10)
    values = {
        "name": f"{slug(found.title)[:25] or 'images'}_{method}",
        "method": METHODS[method],
        "model": {
            "size": kind,
            "img_size": size,
            "patch_size": patch,
            **({} if gpu else SMALL),
            **{"decoder_embed_dim": width, "decoder_depth": depth, "decoder_num_heads": heads},
        },
        "data": data,
        "mask": mask,
        **more,
        "optim": optim,
        "train": {
            "outer_iterations": iterations,
            "log_interval": max(1, iterations // 50),
            "picture_interval": part,
            "checkpoint_interval": part,
        },
    }
    model = f"ViT-{kind[0].upper()}" if gpu else "a small ViT"
    return Recipe(values, f"{size} pixels (median shorter side: {found.side}), {model} for a {'GPU' if gpu else 'CPU'}")


def _sizes(side: int, gpu: bool) -> tuple[int, int]:
    """Image and patch size."""
    if side < 48:
        return 32, 4
    if side < 96:
        return 64, 8
    if gpu and side >= 160:
        return 224, 16
    return (96, 8) if gpu else (96, 12)


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)
