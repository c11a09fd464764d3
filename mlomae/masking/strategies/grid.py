"""Grid masking: one visible patch in every cell of two by two. Ratio 0.75 and nothing else.

Sources: the grid-wise sampling of MAE (He et al., CVPR 2022, section 4.1 and figure 6) and the uniform sampling of
UM-MAE (Li et al. 2022, arXiv 2205.10063), which draws the visible corner of every cell anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.masking.base import MaskState, UnweightedMasking, keep_count, register

CORNERS = ("random", "shared")


@register("grid")
class GridMasking(UnweightedMasking):
    """The patch grid is cut into 2x2 cells; in each, one corner is visible and three are removed.

    ``corner``: "random" draws the visible corner of every cell by itself (UM-MAE); "shared" draws one corner for all
    cells of an image (MAE's regular grid).

    Changed: MAE's grid always shows the same corner, which would never reconstruct a quarter of the positions; here
    it is drawn for each image. UM-MAE's second step, a learnable token in place of a quarter of the visible patches,
    belongs to the encoder and is left out: the mask is all that differs between two runs.

    Raises ConfigError for a grid with an odd side and for any ratio but 0.75.
    """

    def __init__(self, embed_dim: int, grid: tuple[int, int], corner: str = "random") -> None:
        super().__init__()
        rows, columns = grid
        if corner not in CORNERS:
            raise ConfigError(f"grid mask: corner='{corner}' is unknown; choose one of {', '.join(CORNERS)}")
        if rows % 2 or columns % 2:
            raise ConfigError(f"grid mask needs even numbers of patches, not {rows} x {columns}; change the image size")
        self.corner, self.cells = corner, rows * columns // 4
        row, column = (torch.arange(n) for n in grid)
        self.cell_L: Tensor
        self.corner_L: Tensor
        cell = (row // 2 * (columns // 2))[:, None] + column // 2
        self.register_buffer("cell_L", cell.flatten(), persistent=False)
        self.register_buffer("corner_L", (2 * (row % 2)[:, None] + column % 2).flatten(), persistent=False)

    def check_ratio(self, length: int, ratio: float) -> None:
        keep_count(length, ratio)
        if ratio != 0.75:
            raise ConfigError(f"grid mask keeps one patch of four: mask ratio must be 0.75, not {ratio}")

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        self.check_ratio(4 * self.cells, ratio)
        visible = (4 * state.uniform(1 if self.corner == "shared" else self.cells)).long()
        return (visible.expand(-1, self.cells)[:, self.cell_L] != self.corner_L).float()
