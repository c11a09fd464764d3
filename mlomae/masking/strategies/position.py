"""Weights by position alone: a rival of every mask that looks at the image, which costs nothing and needs no labels.

Objects tend to be in the middle of photographs, so a mask that seems to find them may only know that.

Shape legend: B batch, L patches.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from mlomae.common.registry import Positive
from mlomae.masking.base import Mask, MaskingStrategy, MaskState, choose, register
from mlomae.masking.sampling import central_patches


@register("position")
@dataclass(eq=False, repr=False)
class PositionMasking(MaskingStrategy):
    """Masks are uniform; the errors of patches in the middle of every image have ``weight``, all others 1.

    - ``area``: the share of the image that the box in its middle takes, of the image's shape.
    - ``normalize``: the divisor of stage I, "mask" (Σm) or "weight" (the sum of the weights per image).
    """

    sees = "nothing"
    weight: Positive = 5.0
    area: Annotated[float, "(0, 1]"] = 0.5
    normalize: Literal["mask", "weight"] = "mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.middle_L: Tensor
        self.register_buffer("middle_L", central_patches(self.grid, self.area), persistent=False)

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        uniform_BL = state.uniform(self.length)
        weight_L = 1.0 + (self.weight - 1.0) * self.middle_L
        return choose(uniform_BL, ratio, state, weight_L.expand_as(uniform_BL))
