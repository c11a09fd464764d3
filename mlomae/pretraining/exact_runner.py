"""MMEngine's Runner with explicit data parallelism, strict and exact resume, and quiet start-up.

What a task adds is small: its checkpoint format, what of its configuration may change on resume, what it logs, and
what besides modules, optimizers and schedulers it needs to go on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from mmengine.dist import barrier, is_distributed
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch import nn

from mlomae.common import checkpoint
from mlomae.common.errors import CheckpointError

R = TypeVar("R", bound="ExactRunner")


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= _flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def check_same_config(saved: dict[str, Any], current: dict[str, Any], path: Path, free: frozenset[str]) -> None:
    """Raise CheckpointError if resuming would continue another experiment; names the first keys that differ.

    ``free``: keys that may differ because no number depends on them.
    """
    a, b = _flatten(saved), _flatten(current)
    different = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and k not in free)
    if different:
        shown = ", ".join(f"{k} ({a.get(k)!r} -> {b.get(k)!r})" for k in different[:3])
        raise CheckpointError(
            f"'{path}' was made with another configuration: {shown}; "
            "resume with the same one, or choose another work dir"
        )


class ExactRunner(Runner):
    """Drives `OuterLoop`. Gradients are averaged explicitly, so the model is never wrapped; it names what a checkpoint
    keeps of it by ``saved_modules()``. ``settings`` is the configuration, a dataclass with ``to_dict()``."""

    format: ClassVar[str]
    recorded: ClassVar[tuple[str, ...]]
    free_to_change: ClassVar[frozenset[str]]

    run_dir: Path
    settings: Any
    meta: dict[str, Any]
    logged_before: dict[str, float]
    optim_wrapper: Any
    param_schedulers: Any

    @classmethod
    def create(
        cls: type[R],
        settings: Any,
        work_dir: Path,
        meta: dict[str, Any],
        resume: bool,
        *,
        loop: str,
        iterations: int,
        **parts: Any,
    ) -> R:
        """The runner of a configuration, whose ``train`` and ``data`` sections name intervals and workers.

        ``loop``: the registered name of an `OuterLoop`; ``parts`` (model, loaders, optimizers, schedulers, hooks of the
        task, visualizer) as MMEngine's ``Runner`` takes them.
        """
        train = settings.train
        logger = {"type": "LoggerHook", "interval": train.log_interval, "log_metric_by_epoch": False}
        runner = cls(
            work_dir=str(work_dir),
            train_cfg={
                "type": loop,
                "max_iters": iterations,
                "num_workers": settings.data.num_workers,
                "log_interval": train.log_interval,
                "checkpoint_interval": train.checkpoint_interval,
            },
            default_hooks={"logger": logger, "sampler_seed": None, "checkpoint": None},
            log_processor={"by_epoch": False, "window_size": 1},  # the loop hands over means of an interval
            resume=resume,
            launcher="pytorch" if "LOCAL_RANK" in os.environ else "none",
            randomness={"seed": settings.seed},
            experiment_name=settings.name,
            **parts,
        )
        runner.run_dir, runner.settings, runner.meta, runner.logged_before = work_dir, settings, meta, {}
        return runner

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        return model.to(f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu")

    def build_message_hub(self, message_hub: dict | None = None) -> MessageHub:
        """MMEngine hands the same one to runs of one name that start within a second: drop the other run's values."""
        hub = super().build_message_hub(message_hub)
        hub.log_scalars.clear()
        return hub

    def build_param_scheduler(self, scheduler: Any) -> Any:
        built = super().build_param_scheduler(scheduler)
        for _, wrapper in self.optim_wrapper.items():
            wrapper._global_step = 0  # -1 would warn of a wrong order of calls where a level takes its first step late
        return built

    def _log_env(self, env_cfg: dict) -> None:
        """Leave out MMEngine's page of environment text; the record holds versions and hardware."""

    def dump_config(self) -> None:
        """MMEngine's own (empty) config is not ours; checkpoints and the record hold the whole configuration."""

    def get_hooks_info(self) -> str:
        return ", ".join(type(hook).__name__ for hook in self._hooks)

    def last_logged(self) -> dict[str, float]:
        """The last values of the training log that a record keeps, those of before a resume included."""
        scalars = self.message_hub.log_scalars
        now = {k: float(scalars[f"train/{k}"].current()) for k in self.recorded if f"train/{k}" in scalars}
        return {**self.logged_before, **now}

    def training_state(self, iteration: int) -> dict[str, Any]:
        """Everything needed to go on as if never interrupted."""
        return {
            "format": self.format,
            "iteration": iteration,
            "config": self.settings.to_dict(),
            "meta": self.meta,
            "clock": self.train_loop.seconds(),
            "modules": {name: module.state_dict() for name, module in self.model.saved_modules().items()},
            "optimizers": {level: wrapper.state_dict() for level, wrapper in self.optim_wrapper.items()},
            "schedulers": {level: [s.state_dict() for s in each] for level, each in self.param_schedulers.items()},
            **self.further_state(),
            "rng": checkpoint.rng_state(),
            "logged": self.last_logged(),
        }

    def further_state(self) -> dict[str, Any]:
        """What a task keeps beyond that."""
        return {}

    def load_further_state(self, state: dict[str, Any]) -> None:
        """Put `further_state` back from a whole checkpoint."""

    def saved_settings(self, values: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint's configuration with keys that are younger than it at their defaults."""
        return values

    def load_or_resume(self) -> None:
        """Continue from the newest checkpoint of the run's folder if asked to and there is one."""
        found = checkpoint.list_checkpoints(self.run_dir) if self._resume else []
        barrier()  # nobody may write a checkpoint before everybody has looked
        if not found:
            return
        state = checkpoint.load_checkpoint(found[-1], self.format)
        saved = self.saved_settings(state["config"])
        check_same_config(saved, self.settings.to_dict(), found[-1], self.free_to_change)
        for name, weights in state["modules"].items():
            getattr(self.model, name).load_state_dict(weights)
        for level, values in state["optimizers"].items():
            self.optim_wrapper[level].load_state_dict(values)
        for level, each in state["schedulers"].items():
            for scheduler, values in zip(self.param_schedulers[level], each, strict=True):
                scheduler.load_state_dict(values)
        self.load_further_state(state)
        checkpoint.set_rng_state(state["rng"])
        self.logged_before = state["logged"]
        self.train_loop.iter = state["iteration"]
        self.train_loop.clock = state["clock"]
        self.logger.info(f"resumed from {found[-1]} after {state['iteration']} iterations")


def join_process_group() -> None:
    """Under ``torchrun``, join the others; MMEngine's own start insists on a GPU, even for gloo."""
    if "LOCAL_RANK" not in os.environ or is_distributed():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
