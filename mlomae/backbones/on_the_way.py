"""Evaluation of a transfer while it trains, every ``train.eval_interval`` iterations, and the choice of a checkpoint.

Training is not touched: its draws are functions of the iteration, so that a run ends with the same weights with and
without. With ``train.select="best"`` the checkpoint with the best headline metric on ``data.val`` is kept as
``checkpoints/best.pth``, and tested instead of the last one. Test images never choose.
"""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from mmengine.dist import barrier, get_world_size, is_main_process
from torch import Tensor

from mlomae.backbones.batches import ImageLoader
from mlomae.backbones.task import Metric
from mlomae.backbones.training import GatheringMetric, TransferStep, evaluate
from mlomae.common.atomic import write_text
from mlomae.common.checkpoint import (
    TRANSFER_FORMAT,
    WRITTEN,
    Weights,
    best_path,
    load_checkpoint,
    save_atomically,
)
from mlomae.common.errors import CheckpointError
from mlomae.common.structure import Number, check_structure
from mlomae.models.loading import load_strict
from mlomae.pretraining.log import logger
from mlomae.pretraining.trainer import Trainer, elapsed, seconds

Tests = Callable[[], tuple[ImageLoader, GatheringMetric]]
FILE = "validation.json"


class _Row(TypedDict):
    step: Number
    value: float


class _State(TypedDict):
    rows: list[_Row]
    wall: float
    cpu: float


class Validation:
    """A hook of the trainer. ``rows``: iteration and headline metric of each evaluation so far; ``seconds``: spent on
    them, which the clock of a record leaves out.

    Args:
        create: makes the loader of the images and their metric. what: how the log calls the images.
        headline: the metric that is logged and decides. keep: whether the best weights are kept.
    """

    trainer: Trainer

    def __init__(
        self, step: TransferStep, create: Tests, what: str, headline: Metric, interval: int, keep: bool, work_dir: Path
    ) -> None:
        self.step, self.create, self.what, self.headline = step, create, what, headline
        self.interval, self.keep, self.work_dir = interval, keep, work_dir
        self.rows: list[dict[str, Any]] = []
        self.seconds = {"wall": 0.0, "cpu": 0.0}

    def __call__(self, t: int, batch: Any, losses: Mapping[str, Tensor], values: dict[str, float] | None) -> None:
        done = t + 1
        if done % self.interval and done != self.trainer.iterations:
            return
        started, model = seconds(), self.step.model
        loader, metric = self.create()
        evaluate(model, loader, metric, len(loader) + 1)
        model.train()
        value = float(metric.summary[self.headline.name])
        best = self.best
        self.rows.append({"step": done, "value": value})
        if values is not None:
            values[f"{self.what}.{self.headline.name}"] = value
        else:
            logger.info(f"{done}/{self.trainer.iterations}  {self.what} {self.headline.title} {value:.4g}")
        if is_main_process():
            write_text(self.work_dir / FILE, json.dumps({"metric": self.headline.name, "rows": self.rows}) + "\n")
        if self.keep and self.best is not best:
            self._save(done)
        spent = elapsed(started)
        self.seconds = {kind: before + spent[kind] for kind, before in self.seconds.items()}

    @property
    def best(self) -> dict[str, Any] | None:
        """The first of the rows with the best value."""
        sign = 1 if self.headline.higher_is_better else -1
        return max(self.rows, key=lambda row: sign * row["value"], default=None)

    def _save(self, done: int) -> None:
        if is_main_process():
            t = self.trainer
            content = {"format": TRANSFER_FORMAT, "iteration": done, "processes": get_world_size()}
            content |= {"config": t.config.to_dict(), "meta": t.meta, "clock": t.clock}
            modules = {name: copy.copy(module.state_dict()) for name, module in self.step.modules.items()}
            save_atomically({**content, "modules": modules}, best_path(self.work_dir))
        barrier()

    def load_best(self) -> dict[str, Any]:
        """Give the model the best weights; what a record keeps of the choice. Raises CheckpointError if they are gone
        or of another evaluation."""
        path, best = best_path(self.work_dir), self.best
        state = load_checkpoint(path, TRANSFER_FORMAT, Weights)
        if best is None or state["iteration"] != best["step"]:
            raise CheckpointError(f"'{path}' is not the best of the evaluations of this run; choose another work dir")
        for name, module in self.step.modules.items():
            load_strict(module, state["modules"][name])
        return {"chosen_iteration": best["step"], f"val_{self.headline.name}": best["value"]}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows), **self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_structure(state, _State, "in its part 'validation'", WRITTEN)
        self.rows = [dict(row) for row in state["rows"]]
        self.seconds = {kind: float(state[kind]) for kind in self.seconds}
