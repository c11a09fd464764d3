"""The runner of a pretraining: model, data, optimizers, schedules and hooks wired together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mlomae.common import checkpoint
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.data import OuterBatches
from mlomae.pretraining import hooks, loop  # noqa: F401  (importing registers them with MMEngine)
from mlomae.pretraining.curves import CurveHook, LossCurves
from mlomae.pretraining.exact_runner import ExactRunner, join_process_group
from mlomae.pretraining.feedback_hook import FeedbackHook
from mlomae.pretraining.optim import build_optimizers, schedule
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.warmup import needed_levels


class PretrainRunner(ExactRunner):
    """Keeps the feedback's watch and the curves of the losses beside the modules."""

    curves: LossCurves

    format = checkpoint.FORMAT
    recorded = (
        "loss_lower",
        "loss_beside",
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
    free_to_change = frozenset(
        {
            "data.num_workers",
            "data.probe_limit",
            "train.log_interval",
            "train.picture_interval",
            "train.checkpoint_interval",
            "train.keep_checkpoints",
        }
    )

    def further_state(self) -> dict[str, Any]:
        watch = self.model.watch.state_dict() if self.model.watch else {}
        return {"watch": watch, "curves": self.curves.state_dict()}

    def load_further_state(self, state: dict[str, Any]) -> None:
        if state.get("watch"):  # checkpoints of before there was one have a fixed warm-up: its start is known
            self.model.watch.load_state_dict(state["watch"])
        if "curves" in state:  # without them the points of before the resume stay empty
            self.curves.load_state_dict(state["curves"])

    def saved_settings(self, values: dict[str, Any]) -> dict[str, Any]:
        return config_from_dict(values).to_dict()


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
    curves = LossCurves(train.outer_iterations)
    runner = PretrainRunner.create(
        config,
        work_dir,
        meta,
        resume,
        loop="OuterLoop",
        iterations=train.outer_iterations,
        model=model,
        train_dataloader=DataLoader(batches, batch_size=None, sampler=range(train.outer_iterations)),
        optim_wrapper=optimizers,
        param_scheduler={
            level: schedule(config.optim[level], train.outer_iterations, begin.get(level, 0))
            for level in optimizers.keys()  # noqa: SIM118  (it has no __iter__)
        },
        custom_hooks=[
            *([FeedbackHook(config, batches, model.num_classes)] if learned else []),
            CurveHook(curves),
            hooks.MaskHealthHook(train.log_interval, probe),
            hooks.PictureHook(train.picture_interval, probe),
            hooks.AtomicCheckpointHook(train.checkpoint_interval, train.keep_checkpoints),
        ],
        visualizer={
            "type": "Visualizer",
            "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}],
        },
    )
    runner.curves = curves
    return runner
