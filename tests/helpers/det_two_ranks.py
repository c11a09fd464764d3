"""Whole transfers to detection, as they are and under mutations, for one process or several."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import det_runs
import torch
from run_samples import changed

from benchmarks.tasks.detection import run
from benchmarks.tasks.detection.config import DetectionConfig
from mlomae.backbones import training

Weights = dict[str, torch.Tensor]
ITERATIONS = 2
FEW = {"model__test_cfg__rcnn__max_per_img": 10}
ALL = 10_000
"""More boxes than there are: a sampler takes all."""


def sampling_all(values: dict[str, Any]) -> dict[str, Any]:
    """No boxes are drawn, and all ranks divide by the same numbers: every anchor is a sample, every image has 50
    proposals; without the masks' loss, which is a mean over the objects found."""
    assigner, sampler = "train_cfg__{0}__assigner__{1}", "train_cfg__{0}__sampler__{1}"
    changes: dict[str, Any] = {"roi_head__mask_head__loss_mask__loss_weight": 0.0}
    for part in ("rpn", "rcnn"):
        changes |= {assigner.format(part, key): 0.5 for key in ("pos_iou_thr", "neg_iou_thr", "min_pos_iou")}
        changes |= {sampler.format(part, key): value for key, value in (("num", ALL), ("add_gt_as_proposals", False))}
    changes |= {"train_cfg__rpn_proposal__max_per_img": 50, "train_cfg__rpn_proposal__nms__iou_threshold": 1.0}
    return {**values, "model": changed(values["model"], changes)}


def not_averaged(stack: ExitStack) -> None:
    stack.enter_context(mock.patch.object(training, "mean_over_ranks", lambda tensors: tensors))


VARIANTS: dict[str, tuple[Any, Any]] = {
    "plain": (dict, None),
    "all boxes": (sampling_all, None),
    "not averaged": (dict, not_averaged),
}


def config(name: str, root: Path) -> DetectionConfig:
    """SGD at a constant rate: what a step moves is its gradient."""
    constant = {"optim__type": "sgd", "optim__lr": 0.02, "optim__min_lr": 0.02, "optim__warmup": 0.0}
    values = det_runs.values(root, **constant, train__iterations=ITERATIONS, overlays=0, **FEW)
    return DetectionConfig.from_dict(VARIANTS[name][0](values))


def transfer(name: str, root: Path, out: Path) -> Weights:
    """The trained weights; the run is in OUT/NAME."""
    built: list[Any] = []
    build = run.build_detector

    def keeping(*given: Any) -> tuple[Any, str]:
        detector, report = build(*given)
        built.append(detector)
        return detector, report

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(run, "build_detector", keeping))
        if VARIANTS[name][1] is not None:
            VARIANTS[name][1](stack)
        det_runs.run_transfer(config(name, root), out / name)
    return dict(built[0].state_dict())


def transfers(root: Path, out: Path, names: Iterable[str] = VARIANTS) -> dict[str, Weights]:
    return {name: transfer(name, root, out) for name in names}
