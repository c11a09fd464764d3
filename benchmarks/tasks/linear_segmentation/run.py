"""Linear segmentation: mmseg's segmentor with a frozen backbone and a linear classifier of single patches.

Source: the linear segmentation protocol of DINOv2 (Oquab et al., TMLR 2024), BatchNorm and a 1x1 convolution on the
patch features of the last block. Shape legend: B images, C classes, D width, h w patch grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.tasks.segmentation.run import SegmentationSteps

# isort: split
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

MODEL: dict[str, Any] = {"type": "FrozenSegmentor", "decode_head": {"type": "PatchLinearHead"}}


class LinearSegmentationSteps(SegmentationSteps):
    """Trains a linear head on frozen features; its checkpoints hold the head alone."""

    def build_model(self) -> tuple[nn.Module, str]:
        config = replace(self.config, model={**MODEL, **self.config.model})
        return build_segmentor(config, len(self.train.classes))

    def saved_modules(self, model: Any) -> Mapping[str, nn.Module]:
        return {"head": model.decode_head}


@MODELS.register_module()
class PatchLinearHead(BaseDecodeHead):
    """The last of the maps (B, D, h, w) -> logits (B, C, h, w), which mmseg resizes bilinearly to the labels.

    BatchNorm has no affine parameters, as in MAE's linear probe.
    """

    def __init__(self, in_channels: int, **options: Any) -> None:
        super().__init__(in_channels=in_channels, channels=in_channels, dropout_ratio=0.0, **options)
        self.norm = nn.BatchNorm2d(in_channels, affine=False, eps=1e-6)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.cls_seg(self.norm(self._transform_inputs(maps)))


@MODELS.register_module()
class FrozenSegmentor(EncoderDecoder):
    """mmseg's EncoderDecoder whose backbone is not trained and stays in evaluation mode: no drop path in features."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "FrozenSegmentor":
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def extract_feat(self, inputs: Tensor) -> Any:
        return super().extract_feat(inputs)
