"""The smallest transfers: 24 scenes of 16 pixels for training, 10 for testing, a ViT of width 16, narrow heads."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from run_samples import changed

from benchmarks.tasks import get_task
from benchmarks.tasks.segmentation.config import SegmentationConfig
from benchmarks.tasks.segmentation.run import SegmentationSteps
from mlomae import cli
from mlomae.backbones import run
from mlomae.backbones.batches import ImageLoader
from mlomae.data import Scenes

SHAPE = {"patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
COUNTS = {"training": 24, "validation": 10}
BATCH, CLASSES = 8, 5
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

TASK = get_task("segmentation")
run_transfer = partial(run.run_transfer, TASK)


def main(arguments: list[str]) -> int:
    """The command line of this task."""
    return cli.main(["bench", TASK.name, *arguments])


def write_data(root: Path) -> Path:
    """Noisy squares whose colour tells the class; every third image is narrower, a sixth of the squares unlabelled."""
    colours = np.array([[90, 90, 90], [220, 60, 60], [60, 220, 60], [60, 60, 220], [220, 220, 60]])
    for split, count in COUNTS.items():
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng((len(split), i))
            labels = rng.integers(0, CLASSES, (4, 4 if i % 3 else 3)).repeat(4, 0).repeat(4, 1)
            pixels = colours[labels] + rng.integers(-30, 30, (*labels.shape, 3))
            hidden = (rng.random((4, labels.shape[1] // 4)) < 1 / 6).repeat(4, 0).repeat(4, 1)
            values = np.where(hidden, 0, labels + 1)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / split / f"{i:06d}.png")
            Image.fromarray(values.astype(np.uint8)).save(root / "annotations" / split / f"{i:06d}.png")
    (root / "classes.txt").write_text("grey\nred\ngreen\nblue\nyellow\n")
    return root


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
        "train": {"iterations": 6, "amp": "none", "log_interval": 3, "checkpoint_interval": 2, "keep_checkpoints": 10},
        "overlays": 2,
    }
    return changed(given, changes)


def train_loader(settings: SegmentationConfig, scenes: Scenes) -> ImageLoader:
    steps = SegmentationSteps(settings)
    steps.train = scenes
    return steps.loader(train=True)


def eval_loader(settings: SegmentationConfig, scenes: Scenes) -> ImageLoader:
    steps = SegmentationSteps(settings)
    steps.test = scenes
    return steps.loader(train=False)


def config(scenes: Path, **changes: Any) -> SegmentationConfig:
    return SegmentationConfig.from_dict(values(scenes, **changes))


def write_config(path: Path, scenes: Path, **changes: Any) -> Path:
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values(scenes, **changes).items()))
    return path
