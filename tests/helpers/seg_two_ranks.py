"""Whole transfers in float64, as they are and under mutations, for one process or several."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import seg_runs
import torch

from benchmarks.tasks.segmentation import run
from mlomae.backbones import training
from mlomae.pretraining import reduction

Patch = Callable[[ExitStack], Any]
Weights = dict[str, torch.Tensor]


def heads(**options: Any) -> dict[str, Any]:
    """The same option of neck and heads, which the neck has of ``norm_cfg`` alone."""
    parts = {"neck", "decode_head", "auxiliary_head"}
    return {f"model__{part}__{k}": v for part in parts for k, v in options.items() if part != "neck" or k == "norm_cfg"}


GROUPS = heads(norm_cfg={"type": "GN", "num_groups": 2}, dropout_ratio=0.0)  # a batch's halves are what the whole is
CLIPPED = {**GROUPS, "optim__clip_grad": 0.05, "optim__type": "sgd", "optim__lr": 0.1}


def not_averaged(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(training, "mean_over_ranks", lambda tensors: tensors))


def clipped_before_averaging(stack: ExitStack) -> None:
    def patched(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if training.get_world_size() == 1:
            return gradients
        if not gradients:
            return gradients
        share = (0.05 / torch.stack([g.norm() for g in gradients.values()]).norm()).clamp(max=1.0)
        return reduction.mean_over_ranks({name: share * g for name, g in gradients.items()})

    stack.enter_context(mock.patch.object(training, "mean_over_ranks", patched))


def statistics_of_its_own(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(training, "average_statistics"))


VARIANTS: dict[str, tuple[dict[str, Any], Patch | None]] = {
    "adamw": (GROUPS, None),
    "clipped": (CLIPPED, None),
    "not averaged": (GROUPS, not_averaged),
    "clipped before averaging": (CLIPPED, clipped_before_averaging),
    "batch norm": ({}, None),
    "batch norm, own statistics": ({}, statistics_of_its_own),
}


def in_double(stack: ExitStack, built: list[Any]) -> None:
    """Weights, pixels and losses of a run in float64; ``built`` gets its segmentor."""
    build = run.build_segmentor

    def patched(*given: Any) -> tuple[Any, str]:
        segmentor, report = build(*given)
        built.append(segmentor.double())
        return segmentor, report

    stack.enter_context(mock.patch.object(run, "build_segmentor", patched))


def transfer(name: str, scenes: Path, out: Path) -> Weights:
    changes, patch = VARIANTS[name]
    built: list[Any] = []
    with ExitStack() as stack:
        in_double(stack, built)
        if patch is not None:
            patch(stack)
        seg_runs.run_transfer(seg_runs.config(scenes, name=name.replace(" ", "-"), **changes), out / name)
    return dict(built[0].state_dict())


def transfers(scenes: Path, out: Path) -> dict[str, Weights]:
    """Every variant, in the folders OUT/VARIANT; the trained weights and buffers."""
    return {name: transfer(name, scenes, out) for name in VARIANTS}
