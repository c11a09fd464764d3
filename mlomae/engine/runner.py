"""MMEngine's Runner with explicit data parallelism, strict resume and quiet start-up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_distributed
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mlomae.config import PretrainConfig, config_from_dict
from mlomae.data import OuterBatches
from mlomae.engine import checkpoint, hooks, loop  # noqa: F401  (importing registers them with MMEngine)
from mlomae.engine.feedback_hook import FeedbackHook
from mlomae.engine.optim import build_optimizers, schedule
from mlomae.engine.pretrainer import Pretrainer
from mlomae.engine.warmup import needed_levels
from mlomae.errors import CheckpointError

_RECORDED = (
    "loss_lower",
    "loss_head",
    "loss_upper",
    "feedback_accuracy",
    "feedback_chance",
    "phi_started",
    "sigma_saturated",
    "sigma_object_auroc",
    "influence_object_auroc",
    "influence_object_gap",
)
# what may differ between a checkpoint and the run that resumes it: nothing that changes the numbers
_FREE_TO_CHANGE = {
    "data.num_workers",
    "data.probe_limit",
    "train.log_interval",
    "train.picture_interval",
    "train.checkpoint_interval",
    "train.keep_checkpoints",
}


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= _flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def check_same_config(saved: dict[str, Any], current: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError if resuming would continue another experiment; names the first keys that differ."""
    a, b = _flatten(saved), _flatten(current)
    different = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and k not in _FREE_TO_CHANGE)
    if different:
        shown = ", ".join(f"{k} ({a.get(k)!r} -> {b.get(k)!r})" for k in different[:3])
        raise CheckpointError(
            f"checkpoint '{path}' was made with another configuration: {shown}; "
            "resume with the same one, or choose another work dir"
        )


class PretrainRunner(Runner):
    """Drives `OuterLoop`. Gradients are averaged explicitly per level, so the model is never wrapped."""

    run_dir: Path
    pretrain_config: PretrainConfig
    meta: dict[str, Any]
    logged_before: dict[str, float]
    optim_wrapper: Any
    param_schedulers: Any

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
        now = {k: float(scalars[f"train/{k}"].current()) for k in _RECORDED if f"train/{k}" in scalars}
        return {**self.logged_before, **now}

    def training_state(self, iteration: int) -> dict[str, Any]:
        """Everything needed to go on as if never interrupted."""
        return {
            "format": checkpoint.FORMAT,
            "iteration": iteration,
            "config": self.pretrain_config.to_dict(),
            "meta": self.meta,
            "clock": self.train_loop.seconds(),
            "modules": {name: module.state_dict() for name, module in self.model.saved_modules().items()},
            "optimizers": {level: wrapper.state_dict() for level, wrapper in self.optim_wrapper.items()},
            "schedulers": {level: [s.state_dict() for s in each] for level, each in self.param_schedulers.items()},
            "watch": self.model.watch.state_dict() if self.model.watch else {},
            "rng": checkpoint.rng_state(),
            "logged": self.last_logged(),
        }

    def load_or_resume(self) -> None:
        """Continue from the newest checkpoint of the run's folder if asked to and there is one."""
        found = checkpoint.list_checkpoints(self.run_dir) if self._resume else []
        barrier()  # nobody may write a checkpoint before everybody has looked
        if not found:
            return
        state = checkpoint.load_checkpoint(found[-1])
        saved = config_from_dict(state["config"]).to_dict()  # keys younger than the checkpoint have their defaults
        check_same_config(saved, self.pretrain_config.to_dict(), found[-1])
        for name, weights in state["modules"].items():
            getattr(self.model, name).load_state_dict(weights)
        for level, values in state["optimizers"].items():
            self.optim_wrapper[level].load_state_dict(values)
        for level, each in state["schedulers"].items():
            for scheduler, values in zip(self.param_schedulers[level], each, strict=True):
                scheduler.load_state_dict(values)
        if state.get("watch"):  # checkpoints of before there was one have a fixed warm-up: its start is known
            self.model.watch.load_state_dict(state["watch"])
        checkpoint.set_rng_state(state["rng"])
        self.logged_before = state["logged"]
        self.train_loop.iter = state["iteration"]
        self.train_loop.clock = state["clock"]
        self.logger.info(f"resumed from {found[-1]} after {state['iteration']} outer iterations")


def join_process_group() -> None:
    """Under ``torchrun``, join the others; MMEngine's own start insists on a GPU, even for gloo."""
    if "LOCAL_RANK" not in os.environ or is_distributed():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def build_runner(
    config: PretrainConfig,
    model: Pretrainer,
    batches: OuterBatches,
    probe: dict[str, torch.Tensor],
    work_dir: Path,
    meta: dict[str, Any],
    resume: bool = False,
) -> PretrainRunner:
    """Wire model, data and hooks together; under ``torchrun`` the process group is joined here."""
    join_process_group()
    train, levels = config.train, config.levels
    optimizers = build_optimizers(model.level_parameters(), config)
    learned = model.watch is not None
    if learned:
        batches.needed = needed_levels(config)
    begin = {"phi": None if levels.warmup_margin else levels.warmup}
    runner = PretrainRunner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=DataLoader(batches, batch_size=None, sampler=range(train.outer_iterations)),
        train_cfg={
            "type": "OuterLoop",
            "max_iters": train.outer_iterations,
            "num_workers": config.data.num_workers,
            "log_interval": train.log_interval,
            "checkpoint_interval": train.checkpoint_interval,
        },
        optim_wrapper=optimizers,
        param_scheduler={
            level: schedule(config.optim[level], train.outer_iterations, begin.get(level, 0))
            for level in optimizers.keys()  # noqa: SIM118  (it has no __iter__)
        },
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": train.log_interval, "log_metric_by_epoch": False},
            "sampler_seed": None,
            "checkpoint": None,
        },
        custom_hooks=[
            *([FeedbackHook(config, batches, model.num_classes)] if learned else []),
            hooks.MaskHealthHook(train.log_interval, probe),
            hooks.PictureHook(train.picture_interval, probe),
            hooks.AtomicCheckpointHook(train.checkpoint_interval, train.keep_checkpoints),
        ],
        log_processor={"by_epoch": False, "window_size": 1},  # the loop hands over means of an interval
        visualizer={
            "type": "Visualizer",
            "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}],
        },
        resume=resume,
        launcher="pytorch" if "LOCAL_RANK" in os.environ else "none",
        randomness={"seed": config.seed},
        experiment_name=config.name,
    )
    runner.run_dir, runner.pretrain_config, runner.meta, runner.logged_before = work_dir, config, meta, {}
    return runner
