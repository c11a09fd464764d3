"""Whole transfers in float64, each under several mutations; run alone, or as ``torchrun cls_two_ranks.py OUT``.

Writes OUT/rankN.pt: {variant: {name: tensor} of the trained weights and buffers}; predictions are in OUT/VARIANT.
"""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import cls_runs
import torch

from mlomae.backbones import training
from mlomae.backbones.run import Outcome
from mlomae.classification import run
from mlomae.classification.model import BatchPreprocessor, Classifier
from mlomae.pretraining import reduction

Patch = Callable[[ExitStack], Any]
SGD = {"optim__type": "sgd", "optim__lr": 0.1, "optim__momentum": 0.9}
LINEAR = {"protocol": "linear", "data__augment": None}


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
    "adamw": ({"train__ema": 0.8}, None),
    "clipped": ({**SGD, "optim__clip_grad": 0.05}, None),
    "not clipped": (SGD, None),
    "not averaged": ({"train__ema": 0.8}, not_averaged),
    "clipped before averaging": ({**SGD, "optim__clip_grad": 0.05}, clipped_before_averaging),
    "linear": (LINEAR, None),
    "linear, own statistics": (LINEAR, statistics_of_its_own),
    "knn": ({"protocol": "knn"}, None),
}


def in_double(stack: ExitStack) -> None:
    """Weights, images and scores of a run in float64."""
    train, cast = run.ClassificationSteps.train_and_test, BatchPreprocessor.forward

    def patched(self: run.ClassificationSteps, model: Classifier, *rest: Any) -> Outcome:
        return train(self, model.double(), *rest)

    def to_double(self: BatchPreprocessor, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        batch = cast(self, data, training)
        return {**batch, "batch_inputs": batch["batch_inputs"].double()}

    def logits(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        """Without the rounding to float32 at its end."""
        return self.backbone(images)

    stack.enter_context(mock.patch.object(run.ClassificationSteps, "train_and_test", patched))
    stack.enter_context(mock.patch.object(BatchPreprocessor, "forward", to_double))
    stack.enter_context(mock.patch.object(Classifier, "logits", logits))


def watched(stack: ExitStack, models: list[Classifier]) -> None:
    build = run.build_model

    def patched(*given: Any) -> tuple[Classifier, str]:
        model, report = build(*given)
        models.append(model)
        return model, report

    stack.enter_context(mock.patch.object(run, "build_model", patched))


def transfer(name: str, out: Path) -> dict[str, torch.Tensor]:
    changes, patch = VARIANTS[name]
    models: list[Classifier] = []
    config = cls_runs.config(name=name.replace(" ", "-"), train__epochs=1, **changes)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(run, "save_confusion"))  # its picture takes longer than the training
        watched(stack, models)
        if patch is not None:
            patch(stack)
        if config.protocol == "finetune":
            in_double(stack)
        cls_runs.run_transfer(config, out / name)
    modules = models[0].saved_modules().items()
    return {f"{part}.{key}": value for part, module in modules for key, value in module.state_dict().items()}


def transfers(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {name: transfer(name, out) for name in VARIANTS}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = transfers(Path(sys.argv[1]))
    torch.save(results, Path(sys.argv[1]) / f"rank{os.environ['RANK']}.pt")
    assert training.get_world_size() == 2
    torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads now and then abort an ordinary exit
