"""How a classifier is trained: an average of its weights, mixed batches, and the parameters of each protocol."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.tasks.classification.config import ClassificationConfig
from benchmarks.tasks.classification.mixing import BatchMix, mix_key
from benchmarks.tasks.classification.model import Classifier
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.backbones.training import TransferStep
from mlomae.pretraining.optim import parameter_groups


class TransferModel(Classifier):
    """`Classifier` with an average of its weights.

    ``ema``: decay of the average, which is evaluated instead of the last weights; None is off. ``mix``: of the batches
    that it is trained on; None trains on the labels as they are.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        *,
        mix: BatchMix | None = None,
        ema: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, **options)
        self.mix, self.trained = mix, "backbone" if self.head is None else "head"
        averaging = get_ema_multi_avg_fn(ema) if ema else None
        self.ema = AveragedModel(getattr(self, self.trained), multi_avg_fn=averaging) if ema else None

    def saved_modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by name; a frozen backbone is not trained and stays in its own file."""
        modules = {self.trained: getattr(self, self.trained)}
        return modules if self.ema is None else {**modules, "ema": self.ema}

    def test_step(self, data: dict[str, Any]) -> list[dict[str, Tensor]]:
        """Scores of a batch, by the average of the weights if there is one."""
        if self.ema is None:
            return super().test_step(data)
        last = getattr(self, self.trained)
        setattr(self, self.trained, self.ema.module)
        try:
            return super().test_step(data)
        finally:
            setattr(self, self.trained, last)


def build_step(model: TransferModel, config: ClassificationConfig) -> TransferStep:
    """The update of what the protocol trains: the whole backbone, or the linear head alone."""
    settings = config.optim
    if model.head is None:
        groups = layer_decay_groups(model.backbone, settings.lr, settings.weight_decay, settings.layer_decay)
    else:
        head: dict[str, torch.Tensor] = {name: p for name, p in model.head.named_parameters() if p.requires_grad}
        groups = [{"lr": settings.lr, **group} for group in parameter_groups(head, settings.weight_decay)]

    def mixed(data: dict[str, Any], t: int, rank: int) -> dict[str, Any]:
        assert model.mix is not None
        image, label = model.mix(data["image"], data["label"], mix_key(config.seed, t, rank))
        return {**data, "image": image, "label": label}

    def follow() -> None:
        if model.ema is not None:
            model.ema.update_parameters(getattr(model, model.trained))

    mix = None if model.mix is None else mixed
    return TransferStep(model, model.saved_modules(), groups, config, mix=mix, follow=follow)
