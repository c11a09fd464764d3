"""The oracle: known object patches get a mask bias and a loss weight. It measures a data set's headroom.

Not a method: it reads the ground truth, so it runs only on data whose objects are known: the embedded textures,
`on_scenes`, sets with published boxes or outlines, own images with a folder of masks.
An oracle has to be compared with its controls (``patches``), which share all with it but what they know: then its gain
over random masks is

    unevenness (region − random masks) + position (shuffled − region) + image (object − shuffled)

and only the last part can be had by looking at the image.

Shape legend: B batch, L patches, gh gw patch grid.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Positive
from mlomae.masking.base import Mask, MaskingStrategy, MaskState, choose, register
from mlomae.masking.sampling import object_patches

_PLACE = 1  # salt of where a control puts its patches


@register("oracle")
@dataclass(eq=False, repr=False)
class OracleMasking(MaskingStrategy):
    """Score = ``bias`` on object patches + Gumbel noise; weight of their error = ``weight``, others 1.

    - ``bias``: above 0 masks objects more often than the background, below 0 less often; 0 is random masking.
    - ``weight``: of the error of an object patch; 1 weights all patches equally.
    - ``normalize``: the divisor of stage I, "mask" (Σm) or "weight" (the sum of the weights per image).
    - ``patches``: "object", or a control in its place: "shuffled", the object of another image, always the same one (it
      knows where objects tend to be); "region", the object's shape at a uniformly random place, wrapped around the
      edges; "scattered", as many patches anywhere; "everywhere", all patches.
    - ``grow``: patches by which they are dilated, eroded if negative; the edge of the image erodes nothing.

    Budget: exactly L - ⌊(1 - ratio) L⌋ patches are removed, a sample without replacement in which an object patch has
    exp(bias) times the odds of a background patch.

    Raises ConfigError for values out of range and for images without object masks.
    """

    sees = "nothing"
    bias: Annotated[float, "(-inf, inf)"] = 0.0
    weight: Positive = 5.0
    normalize: Literal["mask", "weight"] = "mask"
    patches: Literal["object", "shuffled", "region", "scattered", "everywhere"] = "object"
    grow: int = 0

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        if state.object is None:
            raise ConfigError(
                "masking strategy 'oracle' needs to know the objects of data.train: name a folder of masks "
                "(objects_folder, of imagefolder and pictures), or take textures, on_scenes, coco, or cub200 or "
                "tiny_imagenet with their boxes"
            )
        chosen_BL = self._chosen(object_patches(state.object, self.grid), state)
        weight_BL = 1.0 + (self.weight - 1.0) * chosen_BL
        scores_BL = self.bias * chosen_BL + state.gumbel(chosen_BL.shape[1])
        return choose(scores_BL, ratio, state, weight_BL)

    def _chosen(self, object_BL: Tensor, state: MaskState) -> Tensor:
        """The patches that are treated as objects, (B, L), 0 or 1. The stream has shuffled the objects already."""
        if self.grow:
            object_BL = dilate(object_BL, self.grid, self.grow)
        if self.patches == "everywhere":
            return torch.ones_like(object_BL)
        if self.patches == "scattered":
            rank_BL = state.uniform(object_BL.shape[1], _PLACE).argsort(dim=1).argsort(dim=1)
            return (rank_BL < object_BL.sum(dim=1, keepdim=True)).to(object_BL)
        return moved(object_BL, self.grid, state.uniform(2, _PLACE)) if self.patches == "region" else object_BL


def dilate(patches_BL: Tensor, grid: tuple[int, int], by: int) -> Tensor:
    """Patches at most ``by`` rows and columns from those given, (B, L), 0 or 1; fewer of them for a negative ``by``."""
    side = 2 * abs(by) + 1
    mask = patches_BL if by > 0 else 1.0 - patches_BL
    grown = F.max_pool2d(mask.unflatten(1, (1, *grid)), side, stride=1, padding=abs(by)).flatten(1)
    return grown if by > 0 else 1.0 - grown


def moved(patches_BL: Tensor, grid: tuple[int, int], uniform_B2: Tensor) -> Tensor:
    """The patches moved by a share of the grid's height and width, around the edges, (B, L)."""
    rows, columns = grid
    shift_B, across_B = ((uniform_B2[:, i] * n).long() for i, n in enumerate(grid))
    at = torch.arange(rows * columns, device=patches_BL.device)
    row_BL = (at // columns - shift_B[:, None]) % rows
    column_BL = (at % columns - across_B[:, None]) % columns
    return patches_BL.gather(1, row_BL * columns + column_BL)
