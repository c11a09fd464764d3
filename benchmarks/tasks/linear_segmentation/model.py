"""A linear classifier of single patches under mmseg's segmentor, whose backbone is frozen.

Source: the linear segmentation protocol of DINOv2 (Oquab et al., TMLR 2024), BatchNorm and a 1x1 convolution on the
patch features of the last block. Shape legend: B images, C classes, D width, h w patch grid.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.transfer import dense_data  # noqa: F401  mmcv's operators, before mmseg

# isort: split
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS


@MODELS.register_module()
class PatchLinearHead(BaseDecodeHead):
    """The last of the maps (B, D, h, w) -> logits (B, C, h, w), which mmseg resizes bilinearly to the labels.

    BatchNorm has no affine parameters, as in MAE's linear probe.
    """

    def __init__(self, in_channels: int, **options: Any) -> None:
        super().__init__(in_channels=in_channels, channels=in_channels, dropout_ratio=0.0, **options)
        self.norm = nn.BatchNorm2d(in_channels, affine=False, eps=1e-6)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.cls_seg(self.norm(self._transform_inputs(maps)))
        return logits


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
