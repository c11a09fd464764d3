"""Training of a transfer on MMEngine's Runner, resumed with the same bits, and its evaluation on the test set."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import get_rank
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.tasks.classification.config import ClassificationConfig
from benchmarks.tasks.classification.mixing import BatchMix, mix_key
from benchmarks.tasks.classification.model import Classifier
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.backbones.optimizers import AveragingWrapper, average_statistics, build_optimizer
from mlomae.backbones.seeding import seed_step
from mlomae.common.random_keys import root_key
from mlomae.pretraining.optim import LevelOptimizers, parameter_groups


class TransferModel(Classifier):
    """`Classifier` whose step draws from (seed, iteration, rank) alone, with mixup and an average of the weights.

    ``mix``: None trains on the labels as they are. ``ema``: decay of the average of the weights that is evaluated
    instead of the last ones; None is off.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        *,
        seed: int,
        mix: BatchMix | None = None,
        ema: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, seed=seed, **options)
        self.seed, self.mix = seed, mix
        trained = self.backbone if self.head is None else self.head
        self.ema = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
        self._autocast_checked = False

    def saved_modules(self) -> dict[str, torch.nn.Module]:
        """What a checkpoint holds, by name; a frozen backbone is not trained and stays in its own file."""
        modules: dict[str, torch.nn.Module] = {"head": self.head} if self.head is not None else {}
        modules = modules or {"backbone": self.backbone}
        return modules if self.ema is None else {**modules, "ema": self.ema}

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        """One update on a batch; ``data["iteration"]`` is its number. Returns the loss, detached."""
        iteration, rank = data["iteration"], get_rank()
        data = {key: value for key, value in data.items() if key != "iteration"}
        if not self._autocast_checked:
            first: Any = self.backbone.blocks[0] if self.head is None else self.head
            optim_wrapper["model"].check_autocast(next(m for m in first.modules() if isinstance(m, nn.Linear)))
            self._autocast_checked = True
        seed_step(root_key(self.seed, "drop", iteration, rank))
        if self.mix is not None:
            image, label = self.mix(data["image"], data["label"], mix_key(self.seed, iteration, rank))
            data = {**data, "image": image, "label": label}
        losses = super().train_step(data, optim_wrapper["model"])
        if self.head is not None:
            average_statistics(self.head)
        if self.ema is not None:
            self.ema.update_parameters(self.backbone if self.head is None else self.head)
        return {"loss": losses["loss"].detach()}

    def test_step(self, data: dict[str, Any]) -> list[dict[str, Tensor]]:
        """Scores of a batch, by the average of the weights if there is one."""
        if self.ema is None:
            return super().test_step(data)
        name = "backbone" if self.head is None else "head"
        last = getattr(self, name)
        setattr(self, name, self.ema.module)
        try:
            return super().test_step(data)
        finally:
            setattr(self, name, last)


def build_wrapper(model: Classifier, config: ClassificationConfig) -> LevelOptimizers:
    """{"model": the wrapper} over what the protocol trains: the whole backbone, or the linear head alone."""
    settings = config.optim
    if model.head is None:
        groups = layer_decay_groups(model.backbone, settings.lr, settings.weight_decay, settings.layer_decay)
    else:
        head: dict[str, torch.Tensor] = {name: p for name, p in model.head.named_parameters() if p.requires_grad}
        groups = [{"lr": settings.lr, **group} for group in parameter_groups(head, settings.weight_decay)]
    return LevelOptimizers(
        model=AveragingWrapper(build_optimizer(groups, settings), config.train.amp, settings.clip_grad)
    )
