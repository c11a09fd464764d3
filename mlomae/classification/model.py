"""The classifier of the three protocols, a backbone with its own head or frozen under another one, and its step.

Shape legend: B images, C classes, D backbone width, L patches, N = L and the prefix tokens. A batch is
{"image": (B, 3, H, W) float, "label": (B,) int64 or soft targets (B, C), "index": (B,) int64}.
"""

from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.model import BaseDataPreprocessor, BaseModel
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.backbones.training import TransferStep
from mlomae.classification.augment import BatchMix, mix_key
from mlomae.classification.config import ClassificationConfig
from mlomae.classification.heads import AttentiveHead, LinearHead
from mlomae.common.errors import ConfigError
from mlomae.common.registry import check_choice
from mlomae.models.plain import has_fresh_norm
from mlomae.pretraining.optim import parameter_groups


class BatchPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the model's device and splits images from labels, as MMEngine's ``forward`` takes them."""

    def forward(self, data: dict[str, Tensor], training: bool = False) -> dict[str, Any]:
        batch = dict(self.cast_data(data))
        return {"batch_inputs": batch.pop("image"), "data_samples": batch}


class WeightAverage(AveragedModel):
    """torch's moving average of a module's weights, whose own update would wait for a GPU: it reads the count there."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module)
        self._average, self._count = get_ema_multi_avg_fn(decay), 0

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self._count = int(self.n_averaged)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        own: list[Tensor] = [*self.module.parameters()]
        theirs: list[Tensor] = [*model.parameters()]
        if self._count:
            self._average(own, theirs, self._count)
        else:
            torch._foreach_copy_(own, theirs)
        for buffer, other in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(other)
        self._count += 1
        self.n_averaged.fill_(self._count)


class Classifier(BaseModel):
    """A ViT classifier for the three protocols.

    Fine-tuning: ``linear=None``; the backbone's own head is trained with everything else. Linear: ``linear="cls"``,
    "avg" or "attentive"; the backbone is frozen, stays in evaluation mode, and a `LinearHead`, or an `AttentiveHead`,
    is trained on its `features`. k-NN: `features` alone.

    Args:
        backbone: a model of `create_backbone`. seed: of the head. queries: of an `AttentiveHead`.
        mix: mixes the training batches, which gives soft targets; None trains on the labels themselves.
        smoothing: label smoothing without ``mix``, in [0, 1).
        ema: decay of an average of the weights, which is evaluated instead of the last weights; None is off.

    Raises ConfigError for a backbone that does not fit the protocol.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        *,
        linear: str | None = None,
        queries: int = 16,
        seed: int = 0,
        mix: BatchMix | None = None,
        smoothing: float = 0.0,
        ema: float | None = None,
    ) -> None:
        super().__init__({"type": BatchPreprocessor, "non_blocking": True})
        self.backbone, self.linear, self.mix = backbone, linear, mix
        self.criterion: nn.Module = LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
        if mix is not None:
            self.criterion = SoftTargetCrossEntropy()
        self.head: LinearHead | AttentiveHead | None = None
        if linear is not None:
            self._check_pooling(linear)
            if not backbone.num_classes:
                raise ConfigError("the linear protocol needs classes; create the backbone with their number")
            if linear == "attentive":
                self.head = AttentiveHead(backbone.embed_dim, int(backbone.num_classes), queries, seed)
            else:
                self.head = LinearHead(backbone.embed_dim, int(backbone.num_classes), seed)
            backbone.requires_grad_(False)
            backbone.eval()
        self.trained = "backbone" if self.head is None else "head"
        self.ema = WeightAverage(getattr(self, self.trained), ema) if ema else None

    def train(self, mode: bool = True) -> "Classifier":
        """As usual, but a frozen backbone stays in evaluation mode: no drop path in its features."""
        super().train(mode)
        if self.linear is not None:
            self.backbone.eval()
        return self

    def saved_modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by name; a frozen backbone is not trained and stays in its own file."""
        modules = {self.trained: getattr(self, self.trained)}
        return modules if self.ema is None else {**modules, "ema": self.ema}

    def _check_pooling(self, pooling: str) -> None:
        check_choice("classifier", ("cls", "avg", "attentive"), pooling=pooling)
        if has_fresh_norm(self.backbone):
            raise ConfigError(
                "features need the pretrained final norm, which this backbone dropped; use keep_norm=True"
            )
        if pooling == "cls" and not self.backbone.has_class_token:
            raise ConfigError("this backbone has no class token; choose pooling 'avg'")

    def features(self, images_BCHW: Tensor, pooling: str) -> Tensor:
        """Normed class token ("cls") or mean of the normed patch tokens ("avg"), (B, D) float32; these tokens
        themselves, (B, L, D), for "attentive".

        Equal to `extract_features` of the pretraining on the same weights. Raises ConfigError for another pooling and
        for a backbone whose norm comes after the pooling.
        """
        self._check_pooling(pooling)
        tokens_BND = self.backbone.forward_features(images_BCHW).float()
        if pooling == "cls":
            return tokens_BND[:, 0]
        patches_BLD = tokens_BND[:, self.backbone.num_prefix_tokens :]
        return patches_BLD if pooling == "attentive" else patches_BLD.mean(dim=1)

    def logits(self, images_BCHW: Tensor) -> Tensor:
        """Class scores before the softmax, (B, C) float32 also under autocast."""
        if self.head is None:
            return self.backbone(images_BCHW).float()
        assert self.linear is not None
        if images_BCHW.ndim < 4:  # features that were computed before
            return self.head(images_BCHW).float()
        with torch.no_grad():
            features_BD = self.features(images_BCHW, self.linear)
        return self.head(features_BD).float()

    def forward(self, batch_inputs: Tensor, data_samples: dict[str, Tensor] | None = None, mode: str = "tensor") -> Any:
        """By ``mode``: "tensor" the logits (B, C); "loss" {"loss": scalar}; "predict" a list of B dicts, an image's
        ``score`` (C,) float32, the logits, and its ``label`` and ``index`` as they came."""
        logits_BC = self.logits(batch_inputs)
        if mode == "tensor" or data_samples is None:
            return logits_BC
        if mode == "loss":
            return {"loss": self.criterion(logits_BC, data_samples["label"])}
        rows = zip(logits_BC, data_samples["label"], data_samples["index"], strict=True)
        return [{"score": score_C, "label": label, "index": index} for score_C, label, index in rows]

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


class ClassifierStep(TransferStep):
    """The update of what the protocol trains: the whole backbone, or the head alone."""

    model: Classifier

    def __init__(self, model: Classifier, config: ClassificationConfig) -> None:
        o = config.optim
        if model.head is None:
            groups = layer_decay_groups(model.backbone, o.lr, o.weight_decay, o.layer_decay)
        else:
            head: dict[str, Tensor] = {name: p for name, p in model.head.named_parameters() if p.requires_grad}
            groups = [{"lr": o.lr, **group} for group in parameter_groups(head, o.weight_decay)]
        super().__init__(model, model.saved_modules(), groups, config)

    def __call__(self, data: dict[str, Any], t: int) -> dict[str, Tensor]:
        if (mix := self.model.mix) is not None:
            image, label = mix(data["image"], data["label"], mix_key(self.config.seed, t, get_rank()))
            data = {**data, "image": image, "label": label}
        losses = super().__call__(data, t)
        if self.model.ema is not None:
            self.model.ema.update_parameters(getattr(self.model, self.model.trained))
        return losses
