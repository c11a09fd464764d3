"""AttG-MAE: random masks; the error of a patch weighs the more, the more the patch belongs to the object.

Source: Sick, Engel, Hermosilla and Ropinski, "Attention-Guided Masked Autoencoders for Learning Image Representations",
WACV 2025. With M the map of an unsupervised object discovery (TokenCut), scaled to [0, 1] in an image, a patch weighs

    γ exp(M / τ),   τ on a half cycle of a cosine over the run.

Its weights enter the loss as MLO-MAE's σ does, but come from features instead of feedback: a control for σ.

Shape legend: B batch, S image side, L patches, D width of the features.
"""

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from mlomae.common.precision import full_precision
from mlomae.masking.base import Mask, MaskState, choose, register
from mlomae.masking.teacher import TaughtMasking, object_map, unit

Temperature = Annotated[float, "[0.05, inf)"]


@register("attg")
class AttGMasking(TaughtMasking):
    """The masks of random masking with the same keys; weights as above, γ such that their mean over an image is 1.

    - ``tau_start``, ``tau_end``: τ at the beginning and the end of the run, at least 0.05, below which only a few
      patches would count. The weights in an image differ at most by the factor exp(1 / τ): 1.6 at τ = 2, 7.4 at 0.5.
    - ``teacher``, ``decay``, ``teacher_size``: see `mlomae.masking.teacher.Teacher`; ``decay`` 0 is the encoder itself.

    Changed: the paper takes the map from a frozen DINO; here it comes from the features of a teacher, by default the
    moving average of the encoder. The edges of its graph are those of `mlomae.masking.teacher`; TokenCut's are binary.
    Ours, because we could not find the paper's values: τ falls from gentle weights, while the features do not yet
    show objects, to strong ones; and γ, which keeps the loss on the scale of random masking.

    Raises ConfigError for a τ that is too small, and what `Teacher` raises.
    """

    scheduled = True

    def __init__(
        self,
        embed_dim: int,
        grid: tuple[int, int],
        tau_start: Temperature = 2.0,
        tau_end: Temperature = 0.5,
        **teaching: Any,
    ) -> None:
        super().__init__(embed_dim, grid, **teaching)
        self.tau_start, self.tau_end = tau_start, tau_end

    def tau(self, progress: float) -> float:
        """Half a cycle of a cosine from ``tau_start`` to ``tau_end``."""
        return self.tau_end + (self.tau_start - self.tau_end) * (1.0 + math.cos(math.pi * progress)) / 2.0

    def weight(self, features_BLD: Tensor, progress: float) -> Tensor:
        """Weights (B, L), mean 1 over an image, from the features of its patches."""
        with full_precision(features_BLD.device):
            map_BL = object_map(unit(features_BLD))
        return features_BLD.shape[1] * torch.softmax(map_BL / self.tau(progress), dim=1)

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        weight_BL = self.weight(self.teacher.features(images), state.progress)
        return choose(state.uniform(self.length), ratio, state, weight_BL)
