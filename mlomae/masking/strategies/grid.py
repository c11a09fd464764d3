"""Masks made of square cells of patches: one visible patch in every cell (grid), or whole cells removed (simmim).

Sources, grid: the grid-wise sampling of MAE (He et al., CVPR 2022, section 4.1 and figure 6) and the uniform sampling
of UM-MAE (Li et al. 2022, arXiv 2205.10063), which draws the visible corner of every cell. SimMIM (Xie et al.,
CVPR 2022, section 3.2): the image is cut into cells of 32 pixels, a random share of them is masked, and the mask is
enlarged to the grid of the model's patches.

Shape legend: L patches.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mlomae.common.errors import ConfigError
from mlomae.common.registry import check_interval
from mlomae.masking.base import MaskState, UnweightedMasking, register
from mlomae.masking.sampling import cells
from mlomae.models import keep_count


class CellMasking(UnweightedMasking):
    """Base class: the cell of ``cell`` x ``cell`` patches that each patch lies in (`cells`), and how many there are."""

    cell = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cells = math.prod(-(-patches // self.cell) for patches in self.grid)
        self.cell_L = nn.Buffer(cells(self.grid, self.cell), persistent=False)


@register("grid")
@dataclass(eq=False, repr=False)
class GridMasking(CellMasking):
    """The patch grid is cut into 2x2 cells; in each, one corner is visible and three are removed. Ratio 0.75 only.

    ``corner``: "random" draws the visible corner of every cell separately (UM-MAE); "shared" draws one corner for all
    cells of an image (MAE's regular grid).

    Changed: MAE's grid always shows the same corner, which would never reconstruct a quarter of the positions; here
    it is drawn for each image. UM-MAE's second step, a learnable token in place of a quarter of the visible patches,
    belongs to the encoder and is left out: the mask is all that differs between two runs.

    Raises ConfigError for a grid with an odd side and for any ratio but 0.75.
    """

    corner: Literal["random", "shared"] = "random"

    def __post_init__(self) -> None:
        gh, gw = self.grid
        if gh % 2 or gw % 2:
            raise ConfigError(f"grid mask needs even numbers of patches, not {gh} x {gw}; change the image size")
        super().__post_init__()
        row, column = (torch.arange(n) for n in self.grid)
        self.corner_L = nn.Buffer((2 * (row % 2)[:, None] + column % 2).flatten(), persistent=False)

    def check_ratio(self, length: int, ratio: float) -> None:
        keep_count(length, ratio)
        if ratio != 0.75:
            raise ConfigError(f"grid mask keeps one patch of four: mask ratio must be 0.75, not {ratio}")

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        self.check_ratio(4 * self.cells, ratio)
        visible = (4 * state.uniform(1 if self.corner == "shared" else self.cells)).long()
        return (visible.expand(-1, self.cells)[:, self.cell_L] != self.corner_L).float()


@register("simmim")
@dataclass(eq=False, repr=False)
class SimMIMMasking(CellMasking):
    """Every cell of ``cell`` x ``cell`` patches gets one uniform number; the cells with the highest are removed.

    ``cell``: side of a cell in patches; 2 is the paper's 32 pixels at patches of 16. If it does not divide the grid,
    the cells of the last row and column are smaller.

    Budget: the paper removes ⌈ratio · cells⌉ cells; here exactly L - ⌊(1 - ratio) L⌋ patches are removed. If that is
    not a whole number of cells, one cell loses only its later patches (this does not happen if ratio · cells is whole
    and the cell divides the grid, as with ratio 0.75 and an even number of cells per side).

    Changed: the mask only. SimMIM encodes mask tokens together with the visible patches and has a one-layer head; here
    the removed patches are dropped and MAE's decoder predicts them. The paper's ratio is 0.6.

    Raises ConfigError for a cell larger than the grid.
    """

    cell: int = 2

    def __post_init__(self) -> None:
        check_interval(self.cell, f"[1, {max(self.grid)}]", "option 'cell' of masking strategy 'simmim'")
        super().__post_init__()

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        return state.uniform(self.cells)[:, self.cell_L]
