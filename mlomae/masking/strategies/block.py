"""Block masking: contiguous regions are removed, or all but one visible square.

Sources: BEiT (Bao et al., ICLR 2022, algorithm 1) for the blocks; the visible square is the block-wise baseline of HPM
(Wang et al., CVPR 2023). MAE (He et al., CVPR 2022, section 4.1) compares blocks with random and grid masks.

Shape legend: B batch, L patches, gh gw patch grid, T blocks placed.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from mlomae.masking.base import MaskState, UnweightedMasking, register
from mlomae.masking.sampling import inside, rectangle
from mlomae.models import keep_count

BLOCKS = 12  # enough for 999 of 1,000 images (20,000 tried at ratio 0.75, on grids of 4 x 4 to 16 x 16 patches)


def stretch(at_B: Tensor, size_B: Tensor, place_B: Tensor, n: int) -> Tensor:
    """(B, n) bool: ``size`` successive rows (or columns) of n, rounded, at a uniform place that includes ``at``."""
    size_B = size_B.round().clamp(1, n)
    low_B, high_B = (at_B - size_B + 1).clamp(min=0), torch.minimum(at_B.to(size_B), n - size_B)
    return inside((low_B + place_B * (high_B - low_B + 1)).floor(), size_B, n)


def place_blocks(
    uniform_BT4: Tensor, order_BL: Tensor, grid: tuple[int, int], budget: int, smallest: float, aspect: float
) -> Tensor:
    """Number of the first block that covers a patch, (B, L) float, T where none does.

    Block t covers the patch that comes first in ``order_BL`` (highest number) of those still visible. Its area is
    a ~ U(smallest, what is left of the budget), the ratio of its sides log-uniform on [aspect, 1/aspect], its place
    uniform among those inside the grid that cover the patch. No block is placed once ``budget`` patches are covered.
    """
    gh, gw = grid
    b, blocks = uniform_BT4.shape[:2]
    area_BT, aspect_BT, top_BT, left_BT = uniform_BT4.unbind(-1)
    root_BT = torch.exp((0.5 - aspect_BT) * math.log(aspect))  # √(height / width)
    covered_by = uniform_BT4.new_full((b, gh, gw), blocks)
    for t in range(blocks):
        visible = (covered_by == blocks).flatten(1)
        left_over = budget - gh * gw + visible.sum(dim=1)
        seed = (order_BL * visible).argmax(dim=1)
        side = (smallest + area_BT[:, t] * (left_over - smallest)).clamp(min=1).sqrt()
        rows = stretch(seed // gw, side * root_BT[:, t], top_BT[:, t], gh)
        columns = stretch(seed % gw, side / root_BT[:, t], left_BT[:, t], gw)
        new = rectangle(rows, columns) & (left_over > 0)[:, None, None]
        covered_by = torch.where(new, covered_by.clamp(max=t), covered_by)
    return covered_by.flatten(1)


@register("block")
@dataclass(eq=False, repr=False)
class BlockMasking(UnweightedMasking):
    """``variant`` "beit" removes blocks until the budget is reached; "square" keeps one square at a uniform place.

    - ``smallest``: area of the smallest block as a share of all patches; 0.08 is BEiT's 16 of 196.
    - ``aspect``: sides of a block differ at most by the factor 1/aspect; 0.3 is BEiT's.

    Budget, "beit": exactly L - ⌊(1 - ratio) L⌋ patches are removed. The block that exceeds the budget is cut: it loses
    patches row by row from its top. If the blocks placed are ever too few, random patches make up the rest.
    Budget, "square": the square's side is √K rounded up, K the patches kept, or as near to it as the grid allows; if
    it holds more than K patches, the last of its bottom row are removed. The other options have no effect on it.

    Changed: BEiT places blocks anywhere, redraws one that does not fit, exceeds the budget or covers nothing new, up to
    ten times, and may remove fewer patches than asked. Here a fixed number of tensor operations handles the whole
    batch: every block covers a visible patch drawn at random, its sides are cut to the grid and the last block to the
    budget. BEiT removes 40 % and encodes mask tokens together with the visible patches. As in BEiT, the centre is
    removed more often than the corners.
    """

    variant: Literal["beit", "square"] = "beit"
    smallest: Annotated[float, "[0, 1)"] = 0.08
    aspect: Annotated[float, "(0, 1]"] = 0.3

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        kept = keep_count(self.length, ratio)
        if self.variant == "square":
            return self._outside_square(kept, state)
        uniform_BT4 = state.uniform(4 * BLOCKS).unflatten(1, (BLOCKS, 4))
        order = state.uniform(self.length, salt=1)
        smallest = self.smallest * self.length
        covered_by = place_blocks(uniform_BT4, order, self.grid, self.length - kept, smallest, self.aspect)
        return torch.where(covered_by < BLOCKS, -covered_by, order - BLOCKS - 1)

    def _outside_square(self, kept: int, state: MaskState) -> Tensor:
        gh, gw = self.grid
        width = min(gw, math.isqrt(kept - 1) + 1)
        height = min(gh, -(-kept // width))
        width = -(-kept // height)
        place = state.uniform(2)
        size = torch.ones(len(place), device=place.device, dtype=torch.long)
        rows = inside((place[:, 0] * (gh - height + 1)).long(), height * size, gh)
        columns = inside((place[:, 1] * (gw - width + 1)).long(), width * size, gw)
        return (~rectangle(rows, columns)).float().flatten(1)
