"""The smallest transfers: 24 scenes of 16 pixels for training, 10 for testing, a ViT of width 16, narrow heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from run_samples import changed

from benchmarks.segmentation.config import SegmentationConfig, config_from_dict
from mlomae.data import Textures, write_scenes

SHAPE = {"patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
COUNTS = {"training": ("train", 24), "validation": ("test", 10)}
BATCH, PER_EPOCH, TEST_IMAGES, CLASSES = 8, 3, 10, 5
BN: dict[str, Any] = {"type": "BN"}
HEAD: dict[str, Any] = {"channels": 8, "dropout_ratio": 0.1, "norm_cfg": BN, "align_corners": False}
AUGMENT: list[dict[str, Any]] = [
    {"type": "RandomResize", "scale": (32, 16), "ratio_range": (0.5, 2.0), "keep_ratio": True},
    {"type": "RandomCrop", "crop_size": (16, 16), "cat_max_ratio": 0.75},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PhotoMetricDistortion"},
]
MODEL: dict[str, Any] = {
    "neck": {"type": "Feature2Pyramid", "rescales": [4, 2, 1, 0.5], "norm_cfg": BN},
    "decode_head": {
        **{"type": "UPerHead", "in_index": [0, 1, 2, 3], "pool_scales": (1, 2), **HEAD},
        "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
    },
    "auxiliary_head": {
        **{"type": "FCNHead", "in_index": 2, "num_convs": 1, "concat_input": False, **HEAD},
        "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4},
    },
}


def write_data(root: Path) -> Path:
    """Textures as scenes. Some images are cut to 16x12; of every one, the pixels of a corner are not labelled."""
    options: dict[str, Any] = {"size": 16, "classes": CLASSES - 1, "mixed": True}
    splits = {name: Textures(split, count=count, **options) for name, (split, count) in COUNTS.items()}
    folder = write_scenes(root, splits)
    for i, path in enumerate(sorted(folder.glob("*/*/*.png"))):
        pixels = np.array(Image.open(path))
        if int(path.stem) % 3 == 0:
            pixels = pixels[:, :12]
        if pixels.ndim == 2:
            pixels[: 2 + i % 3, :4] = 0
        Image.fromarray(pixels).save(path)
    return folder


def values(scenes: Path, **changes: Any) -> dict[str, Any]:
    """Config values on the data of `write_data`; ``train__amp="bf16"`` sets a nested key."""
    source = {"type": "scene_folder", "root": str(scenes)}
    given = {
        "name": "tiny",
        "data": {
            "train": {**source, "split": "training"},
            "test": {**source, "split": "validation"},
            "augment": AUGMENT,
            "batch_size": BATCH,
        },
        "model": MODEL,
        "backbone": {"weights": "random", "model": SHAPE, "img_size": 16, "out_indices": [0, 1, 2, 3]},
        "optim": {"lr": 1e-2, "layer_decay": 0.75, "min_lr": 0.0},
        "train": {"iterations": 6, "log_interval": 3, "checkpoint_interval": 2, "keep_checkpoints": 10},
        "overlays": 2,
    }
    return changed(given, changes)


def config(scenes: Path, **changes: Any) -> SegmentationConfig:
    return config_from_dict(values(scenes, **changes))


def write_config(path: Path, scenes: Path, **changes: Any) -> Path:
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values(scenes, **changes).items()))
    return path
