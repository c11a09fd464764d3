"""The smallest run that exercises everything: 96 textures of 16 pixels, width 16, seconds on one core."""

import copy
import os
from pathlib import Path
from typing import Any

import torch

from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.pretraining.optim import build_optimizers
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import PretrainData, build_data
from mlomae.pretraining.step import PretrainStep

HELPERS = Path(__file__).parent
CLASSES = 4

_TEXTURES = {"type": "textures", "count": 96, "size": 16, "classes": CLASSES}
_VALUES: dict[str, Any] = {
    "name": "tiny",
    "method": "MLO-MAE",
    "model": {
        "size": "tiny",
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "decoder_embed_dim": 16,
        "decoder_depth": 1,
        "decoder_num_heads": 2,
    },
    "data": {
        "train": {**_TEXTURES, "split": "train"},
        "eval": {**_TEXTURES, "split": "test", "count": 32},
        "batch_size": 8,
        "feedback_batch_size": 8,
    },
    "mask": {"type": "learned", "ratio": 0.75, "hidden": 16},
    "feedback": {"type": "linear", "pooling": "avg", "dropout": 0.1},
    "optim": {"theta": {"warmup": 0.2, "clip_grad": 1.0}, "phi": {"betas": [0.9, 0.99]}},
    "train": {
        "outer_iterations": 10,
        "amp": "none",
        "log_interval": 2,
        "picture_interval": 4,
        "checkpoint_interval": 2,
        "keep_checkpoints": 10,
    },
}
RANDOM = {"method": "MAE", "mask": {"type": "random", "ratio": 0.75}}


def values(**changes: Any) -> dict[str, Any]:
    """Config values of the tiny run; ``train__amp="bf16"`` sets a nested key, a plain key replaces a section."""
    result = copy.deepcopy(_VALUES)
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return result


def config(**changes: Any) -> PretrainConfig:
    return config_from_dict(values(**changes))


def write_config(path: Path, **changes: Any) -> Path:
    """A config file of the tiny run, for the command line."""
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values(**changes).items()))
    return path


def trainer(cfg: PretrainConfig) -> tuple[Pretrainer, PretrainData]:
    """A fresh model and the data of ``cfg``, without a trainer."""
    torch.manual_seed(cfg.seed)
    return Pretrainer(cfg, CLASSES), build_data(cfg)


def step_of(model: Pretrainer) -> PretrainStep:
    """The outer iteration of a model, with optimizers as its configuration says, at constant rates."""
    return PretrainStep(model, build_optimizers(model.level_parameters(), model.config))


def environment() -> dict[str, str]:
    """For child processes: one thread, and the helpers of this folder importable."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])]),
    }


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two nests of tensors and plain values differ in a bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys {a.keys() ^ b.keys()}"]
        return [hit for k in a for hit in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{where}: lengths"]
        return [hit for i, (x, y) in enumerate(zip(a, b, strict=True)) for hit in differences(x, y, f"{where}.{i}")]
    return [] if a == b else [where]


def state_differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Differences between two checkpoints in everything but the clock."""
    return [hit for k in (a.keys() | b.keys()) - {"clock"} for hit in differences(a.get(k), b.get(k), k)]
