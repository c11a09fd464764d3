"""A checkpoint made ready for roll-outs: model, data, the optimizer in its state, batches that are functions of t.

Shape legend: B images of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from mlomae.common.checkpoint import load_checkpoint
from mlomae.common.errors import ConfigError
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.data import Stream, build_augment
from mlomae.feedback import is_joint
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.optim import build_optimizers
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import PretrainData, build_data

Batch = dict[str, Any]


@dataclass
class Setup:
    """``model`` at the checkpoint, with uniform masks and a feedback without a head; ``lr`` the rate of θ."""

    config: PretrainConfig
    data: PretrainData
    model: Pretrainer
    saved: dict[str, Any]  # of θ's optimizer
    lr: float
    iteration: int

    def optimizer(self) -> Optimizer:
        """A fresh AdamW of θ in the checkpoint's state, at the constant rate ``lr``."""
        optimizer = build_optimizers({"theta": self.model.level_parameters()["theta"]}, self.config)["theta"]
        optimizer.load_state_dict(copy.deepcopy(self.saved))  # torch would keep these very tensors and step on them
        for group in optimizer.param_groups:
            group["lr"] = self.lr
        return optimizer

    def stream(self, level: str, use: str) -> Stream:
        """The images and augmentation of "lower", "head" or "upper" as in training, in an order that ``use`` names."""
        name, seed, data = f"horizon/{use}/{level}", self.config.seed, self.data
        if level == "lower":
            lower = data.batches.lower
            return Stream(lower.source, lower.indices, lower.augment, seed, name)
        indices = data.split.train_indices if level == "head" else data.split.val_indices
        augment = build_augment({"size": self.config.model.img_size, **self.config.data.feedback_augment})
        return Stream(data.feedback, indices, augment, seed, name)

    def numbered(self, stream: Stream, size: int) -> Callable[[int], Batch]:
        """Batch t of ``size`` images, on the model's device; made anew at every call, so that none is kept."""
        device = next(self.model.parameters()).device
        return lambda t: to_device(stream.batch(t * size, size), device)


def set_up(checkpoint: Path, feedback: str | None, data_root: str | None, lr: float | None) -> Setup:
    """Load a checkpoint; arguments and errors as of `mlomae.diagnostics.horizon.run.horizon`."""
    state = load_checkpoint(checkpoint)
    config = _config(state["config"], feedback, data_root)
    saved = state["optimizers"]["theta"]
    lr = _rate(saved, config, checkpoint) if lr is None else lr
    data = build_data(config)
    model = Pretrainer(config, data.num_classes)
    model.mae.load_state_dict(state["modules"]["mae"])
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return Setup(config, data, model, saved, lr, state["iteration"])


def _config(values: dict[str, Any], feedback: str | None, data_root: str | None) -> PretrainConfig:
    """The run's configuration with uniform masks, without evaluation data, and with a feedback that has no head."""
    config = config_from_dict(values)
    config.data.eval, config.init_from, config.levels.v_momentum = None, None, 0.0
    config.mask = {"type": "random", "ratio": config.mask.get("ratio", 0.75)}
    if data_root is not None:
        config.data.train["root"] = data_root
    own = config.feedback["type"]
    name = feedback or (own if is_joint(own) else "nca")
    if not is_joint(name):
        raise ConfigError(
            f"feedback '{name}' has a head, which every roll-out would have to train anew; use --feedback nca or ridge"
        )
    if name != own:
        config.feedback = {"type": name}
    return config


def _rate(saved: dict[str, Any], config: PretrainConfig, path: Path) -> float:
    """The rate of θ's optimizer; ConfigError where its schedule has brought it to nothing."""
    stored, peak = float(saved["param_groups"][0]["lr"]), config.optim["theta"].lr
    if not stored > 1e-3 * peak:
        raise ConfigError(
            f"the learning rate of '{path}' has decayed to {stored:.1e}; give one, e.g. --lr {peak:g}, the highest of "
            "the run, or take an earlier checkpoint"
        )
    return stored
