"""The oracle: known object patches get a mask bias and a loss weight. It measures a data set's headroom.

Not a method: it reads the ground truth, so it runs on data that ships object masks (the embedded textures) only.
"""

from __future__ import annotations

import math

from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.masking.base import Mask, MaskingStrategy, MaskState, mask_from_scores, register
from mlomae.masking.sampling import gumbel, object_patches


@register("oracle")
class OracleMasking(MaskingStrategy):
    """Score = ``bias`` on object patches + Gumbel noise; weight of their error = ``weight``, others 1.

    ``bias`` > 0 masks objects more often than the background, < 0 less often, 0 is random masking.
    """

    def __init__(
        self, embed_dim: int, grid: tuple[int, int], bias: float = 0.0, weight: float = 5.0, normalize: str = "mask"
    ) -> None:
        super().__init__()
        if not (math.isfinite(bias) and 0 < weight < math.inf):
            raise ConfigError(f"oracle needs a finite bias and a positive weight; got bias={bias}, weight={weight}")
        if normalize not in ("mask", "weight"):
            raise ConfigError(f"oracle: normalize='{normalize}' is unknown; choose one of mask, weight")
        self.grid, self.bias, self.weight, self.normalize = grid, bias, weight, normalize

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        if state.object is None:
            raise ConfigError("masking strategy 'oracle' needs object masks, which only the embedded textures have")
        object_BL = object_patches(state.object, self.grid)
        weight_BL = 1.0 + (self.weight - 1.0) * object_BL
        if state.fixed is not None:
            return state.fixed.with_weight(weight_BL)
        scores = self.bias * object_BL + gumbel(state.uniform(object_BL.shape[1]))
        return mask_from_scores(scores, ratio, weight_BL)
