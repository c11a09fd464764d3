"""SimMIM's mask: coarse square cells of several patches, removed at random as a whole.

Source: SimMIM (Xie et al., CVPR 2022, section 3.2): the image is cut into cells of 32 pixels, a random share of them is
masked, and the mask is enlarged to the grid of the model's patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.masking.base import MaskState, UnweightedMasking, register


@register("simmim")
class SimMIMMasking(UnweightedMasking):
    """Every cell of ``cell`` x ``cell`` patches gets one uniform number; the cells with the highest are removed.

    ``cell``: side of a cell in patches; 2 is the paper's 32 pixels at patches of 16. Where it does not divide the grid,
    the cells of the last row and column are smaller.

    Budget: the paper removes ⌈ratio · cells⌉ cells; here exactly L - ⌊(1 - ratio) L⌋ patches go. Where that is no
    whole number of cells, one cell loses only its later patches (none where ratio · cells is whole and the cell
    divides the grid, as with ratio 0.75 and an even number of cells a side).

    Changed: the mask only. SimMIM encodes mask tokens together with the visible patches and has a one-layer head; here
    the removed patches are dropped and MAE's decoder predicts them. The paper's ratio is 0.6.
    """

    def __init__(self, embed_dim: int, grid: tuple[int, int], cell: int = 2) -> None:
        super().__init__()
        if not 1 <= cell <= max(grid):
            raise ConfigError(f"simmim mask: cell={cell} patches must be at least 1 and at most the grid, {max(grid)}")
        rows, columns = (torch.arange(n) // cell for n in grid)
        across = (grid[1] - 1) // cell + 1
        self.cells = ((grid[0] - 1) // cell + 1) * across
        self.cell_L: Tensor
        self.register_buffer("cell_L", (rows[:, None] * across + columns).flatten(), persistent=False)

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        return state.uniform(self.cells)[:, self.cell_L]
