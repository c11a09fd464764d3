"""The oracle: known object patches get a mask bias and a loss weight. It measures a data set's headroom.

Not a method: it reads the ground truth, so it runs only on data that comes with object masks (the embedded textures).

Shape legend: B batch, L patches.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Positive
from mlomae.masking.base import Mask, MaskingStrategy, MaskState, choose, register
from mlomae.masking.sampling import object_patches


@register("oracle")
@dataclass(eq=False, repr=False)
class OracleMasking(MaskingStrategy):
    """Score = ``bias`` on object patches + Gumbel noise; weight of their error = ``weight``, others 1.

    - ``bias``: above 0 masks objects more often than the background, below 0 less often; 0 is random masking.
    - ``weight``: of the error of an object patch; 1 weights all patches equally.
    - ``normalize``: the divisor of stage I, "mask" (Σm) or "weight" (the sum of the weights per image).

    Budget: exactly L - ⌊(1 - ratio) L⌋ patches are removed, a sample without replacement in which an object patch has
    exp(bias) times the odds of a background patch.

    Raises ConfigError for values out of range and for images without object masks.
    """

    sees = "nothing"
    bias: Annotated[float, "(-inf, inf)"] = 0.0
    weight: Positive = 5.0
    normalize: Literal["mask", "weight"] = "mask"

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        if state.object is None:
            raise ConfigError("masking strategy 'oracle' needs object masks, which only the embedded textures have")
        object_BL = object_patches(state.object, self.grid)
        weight_BL = 1.0 + (self.weight - 1.0) * object_BL
        scores_BL = self.bias * object_BL + state.gumbel(object_BL.shape[1])
        return choose(scores_BL, ratio, state, weight_BL)
