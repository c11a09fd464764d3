"""The model that MMEngine trains and evaluates: a backbone with its own head, or frozen under a linear head.

Shape legend: B images, C classes, D backbone width, L patches. A batch is {"image": (B, 3, H, W) float, "label": (B,)
int64 or soft targets (B, C), "index": (B,) int64}.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mlomae.backbones.create import create_backbone, has_fresh_norm
from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import root_key

POOLINGS = ("cls", "avg")
LOSSES = ("cross_entropy", "label_smoothing", "soft_target")


def create_loss(name: str, smoothing: float = 0.0) -> nn.Module:
    """timm's loss by name: cross_entropy, label_smoothing (hard labels) or soft_target (mixup's targets (B, C)).

    MAE's rule is soft_target with mixup, which smooths by itself, else label_smoothing if any, else cross_entropy.
    Raises ConfigError for another name, or a ``smoothing`` that the loss would not use or that is not in [0, 1).
    """
    if name not in LOSSES:
        raise ConfigError(f"unknown loss '{name}'; choose one of {', '.join(LOSSES)}")
    if not 0.0 <= smoothing < 1.0:
        raise ConfigError(f"label smoothing {smoothing} is outside [0, 1)")
    if name == "label_smoothing":
        return LabelSmoothingCrossEntropy(smoothing)
    if smoothing:
        raise ConfigError(f"loss '{name}' does not smooth labels; set smoothing=0 or choose label_smoothing")
    return SoftTargetCrossEntropy() if name == "soft_target" else nn.CrossEntropyLoss()


class LinearHead(nn.Sequential):
    """BatchNorm without affine parameters, then a linear layer: (B, D) -> (B, C).

    Weights truncated normal of std 0.01, zero bias, from ``seed`` alone. Source: MAE's main_linprobe.py.
    Under data parallelism each rank standardises with the statistics of its own batch, as there.
    """

    def __init__(self, in_features: int, num_classes: int, seed: int = 0) -> None:
        linear = nn.Linear(in_features, num_classes)
        super().__init__(nn.BatchNorm1d(in_features, affine=False, eps=1e-6), linear)
        generator = torch.Generator().manual_seed(root_key(seed, "linear_head"))
        nn.init.trunc_normal_(linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(linear.bias)


@MODELS.register_module()
class BatchPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the model's device and splits images from labels, as MMEngine's ``forward`` takes them."""

    def forward(self, data: dict[str, Tensor], training: bool = False) -> dict[str, Any]:
        batch = dict(self.cast_data(data))
        return {"batch_inputs": batch.pop("image"), "data_samples": batch}


@MODELS.register_module()
class Classifier(BaseModel):
    """A ViT classifier for the three protocols.

    Fine-tuning: ``linear=None``; the backbone's own head is trained with everything else. Linear: ``linear="cls"`` or
    "avg"; the backbone is frozen, stays in evaluation mode, and a `LinearHead` is trained on its `features`. k-NN:
    `features` alone. ``backbone`` is a model of `create_backbone` or a dict of its arguments; ``seed`` is the linear
    head's. Raises ConfigError for options that do not fit each other, and what `create_backbone` raises.
    """

    def __init__(
        self,
        backbone: VisionTransformer | dict[str, Any],
        loss: str = "cross_entropy",
        smoothing: float = 0.0,
        linear: str | None = None,
        seed: int = 0,
        data_preprocessor: dict[str, Any] | nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {"type": BatchPreprocessor, "non_blocking": True})
        self.report = None
        if not isinstance(backbone, VisionTransformer):
            backbone, self.report = create_backbone(**backbone)
        self.backbone, self.linear = backbone, linear
        self.num_classes = int(backbone.num_classes)
        self.loss_name, self.criterion = loss, create_loss(loss, smoothing)
        self.head: LinearHead | None = None
        if linear is not None:
            self._check_pooling(linear)
            if not self.num_classes:
                raise ConfigError("the linear protocol needs classes; create the backbone with their number")
            self.head = LinearHead(backbone.embed_dim, self.num_classes, seed)
            backbone.requires_grad_(False)
            backbone.eval()

    def init_weights(self) -> None:
        """Nothing: MMEngine's Runner calls this, and the inherited one would call timm's and undo the loading."""

    def train(self, mode: bool = True) -> Classifier:
        """As always, but a frozen backbone stays in evaluation mode: no drop path in its features."""
        super().train(mode)
        if self.linear is not None:
            self.backbone.eval()
        return self

    def _check_pooling(self, pooling: str) -> None:
        if pooling not in POOLINGS:
            raise ConfigError(f"unknown pooling '{pooling}'; choose one of {', '.join(POOLINGS)}")
        if has_fresh_norm(self.backbone):
            raise ConfigError(
                "features need the pretrained final norm, which this backbone dropped; use keep_norm=True"
            )
        if pooling == "cls" and not self.backbone.has_class_token:
            raise ConfigError("this backbone has no class token; choose pooling 'avg'")

    def features(self, images_BCHW: Tensor, pooling: str) -> Tensor:
        """Normed class token ("cls") or mean of the normed patch tokens ("avg"), (B, D) float32.

        Equal to `extract_features` of the pretraining on the same weights. Raises ConfigError for another pooling and
        for a backbone whose norm comes after the pooling.
        """
        self._check_pooling(pooling)
        tokens_BLD = self.backbone.forward_features(images_BCHW).float()
        return tokens_BLD[:, 0] if pooling == "cls" else tokens_BLD[:, self.backbone.num_prefix_tokens :].mean(dim=1)

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """Class scores before the softmax, (B, C) float32 also under autocast."""
        if self.head is None:
            return self.backbone(images_BCHW).float()
        assert self.linear is not None
        if images_BCHW.ndim == 2:  # features that were computed before
            return self.head(images_BCHW).float()
        with torch.no_grad():
            features_BD = self.features(images_BCHW, self.linear)
        return self.head(features_BD).float()

    def forward(self, batch_inputs: Tensor, data_samples: dict[str, Tensor] | None = None, mode: str = "tensor") -> Any:
        """By ``mode``: "tensor" the logits (B, C); "loss" {"loss": scalar}; "predict" a list of B dicts.

        Each holds an image's ``score`` (C,) float32, the logits, and its ``label`` and ``index`` as they came: what
        MMEngine's evaluator iterates over. Raises ConfigError for an unknown mode and if
        labels are of the other kind than the loss takes.
        """
        if mode not in ("tensor", "loss", "predict"):
            raise ConfigError(f"unknown mode '{mode}'; choose tensor, loss or predict")
        logits_BC = self.logits(batch_inputs)
        if mode == "tensor":
            return logits_BC
        if data_samples is None:
            raise ConfigError(f"mode '{mode}' needs the labels of the batch")
        if mode == "predict":
            rows = zip(logits_BC, data_samples["label"], data_samples["index"], strict=True)
            return [{"score": score_C, "label": label, "index": index} for score_C, label, index in rows]
        target = data_samples["label"]
        if (target.ndim == 2) != (self.loss_name == "soft_target"):
            kind = "soft targets (B, C)" if target.ndim == 2 else "hard labels (B,)"
            raise ConfigError(f"loss '{self.loss_name}' got {kind}; soft_target goes with mixup, the others without")
        return {"loss": self.criterion(logits_BC, target)}
