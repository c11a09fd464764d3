"""The smallest transfers: 96 textures of 16 pixels for training, 40 for testing, a ViT of width 16."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from run_samples import changed

from benchmarks.tasks import get_task
from mlomae import cli
from mlomae.backbones import run
from mlomae.classification.config import ClassificationConfig
from mlomae.classification.per_image import FORMAT
from mlomae.classification.run import ClassificationSteps
from mlomae.config.schema import config_from_dict as pretrain_config
from mlomae.pretraining.run import run_pretraining

SHAPE = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
TEXTURES = {"type": "textures", "size": 16, "classes": 4}
PER_EPOCH = 6
TEST_IMAGES = 40
_VALUES: dict[str, Any] = {
    "name": "tiny",
    "protocol": "finetune",
    "data": {
        "train": {**TEXTURES, "split": "train", "count": 96},
        "test": {**TEXTURES, "split": "test", "count": TEST_IMAGES},
        "augment": {"type": "pad_crop", "padding": 2},
        "evaluate": {"crop_pct": 1.0},
        "batch_size": 16,
    },
    "backbone": {"weights": "random", "img_size": 16, "model": SHAPE},
    "optim": {"lr": 1e-2, "layer_decay": 0.75},
    "train": {"epochs": 2, "amp": "none", "log_interval": 3, "checkpoint_interval": 4, "keep_checkpoints": 10},
}

TASK = get_task("classification")
run_transfer = partial(run.run_transfer, TASK)


def main(arguments: list[str]) -> int:
    """The command line of this task."""
    return cli.main(["bench", TASK.name, *arguments])


def values(**changes: Any) -> dict[str, Any]:
    """Config values; ``train__amp="bf16"`` sets a nested key, a plain key replaces a section."""
    return changed(_VALUES, changes)


def config(**changes: Any) -> ClassificationConfig:
    return ClassificationConfig.from_dict(values(**changes))


def opened(config: ClassificationConfig) -> ClassificationSteps:
    """The steps of a run whose data are open."""
    steps = ClassificationSteps(config)
    steps.train, steps.test = steps.open_data()
    return steps


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values(**changes).items()))
    return path


def pretrain(work: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """(checkpoint, record) of two iterations of MLO-MAE on the training images, evaluated on the test images."""
    given = {
        "name": "tiny-pretraining",
        "method": "MLO-MAE",
        "model": {"size": "tiny", "img_size": 16, **SHAPE}
        | {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2},
        "data": {"train": _VALUES["data"]["train"], "eval": _VALUES["data"]["test"]}
        | {"batch_size": 8, "feedback_batch_size": 8},
        "mask": {"type": "learned", "ratio": 0.75, "hidden": 16},
        "feedback": {"type": "linear"},
        "train": {
            "outer_iterations": 2,
            "amp": "none",
            "log_interval": 2,
            "picture_interval": 9,
            "checkpoint_interval": 2,
        },
    }
    record = run_pretraining(pretrain_config(changed(given, changes)), work)
    return work / "checkpoints" / "iter_2.pth", record


def predictions(work: Path) -> dict[str, np.ndarray]:
    return dict(vars(FORMAT.read(work / "predictions.npz")[0]))
