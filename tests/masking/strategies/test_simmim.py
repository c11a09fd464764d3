"""SimMIM's masks are constant on coarse cells, which are chosen uniformly."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys as counter
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState, keep_count


def draw(batch: int, grid: tuple[int, int], ratio: float, cell: int) -> Tensor:
    """Masks (batch, gh, gw)."""
    strategy = masking.create("simmim", embed_dim=8, grid=grid, cell=cell)
    state = MaskState(counter.fold(counter.root_key(0, "simmim"), torch.arange(batch)))
    return strategy(torch.zeros(0), torch.zeros(0), ratio, 0, state).mask.view(batch, *grid)


def cells(mask_BHW: Tensor, cell: int) -> list[Tensor]:
    """The patches of every cell, (B, n) each, row by row; the last cells may be smaller."""
    _, gh, gw = mask_BHW.shape
    return [
        mask_BHW[:, row : row + cell, column : column + cell].flatten(1)
        for row in range(0, gh, cell)
        for column in range(0, gw, cell)
    ]


@pytest.mark.parametrize(("grid", "cell"), [((8, 8), 2), ((8, 8), 4), ((12, 4), 2), ((14, 14), 7)])
def test_a_mask_is_constant_on_cells_where_the_budget_is_a_number_of_cells(grid: tuple[int, int], cell: int) -> None:
    found = cells(draw(100, grid, 0.75, cell), cell)
    assert all((part == part[:, :1]).all() for part in found)
    assert (torch.stack([part[:, 0] for part in found]).sum(dim=0) == 0.75 * len(found)).all()


@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.75, 0.8])
@pytest.mark.parametrize(("grid", "cell"), [((8, 8), 2), ((7, 9), 2), ((8, 8), 3), ((6, 6), 6)])
def test_else_one_cell_at_most_is_cut_and_loses_its_later_patches(
    grid: tuple[int, int], cell: int, ratio: float
) -> None:
    mask = draw(100, grid, ratio, cell)
    found = cells(mask, cell)
    mixed = torch.stack([part.amin(dim=1) < part.amax(dim=1) for part in found])
    assert (mixed.sum(dim=0) <= 1).all()
    assert all((part.diff(dim=1) >= 0).all() for part in found)
    length = grid[0] * grid[1]
    assert (mask.sum(dim=(1, 2)) == length - keep_count(length, ratio)).all()


def test_every_set_of_cells_is_as_likely() -> None:
    found = torch.stack([part[:, 0] for part in cells(draw(6_000, (6, 4), 0.5, 2), 2)], dim=1)
    sets = (found @ 2 ** torch.arange(6.0)).unique(return_counts=True)[1]
    assert len(sets) == 20  # three of six
    assert stats.chisquare(sets).pvalue > 1e-3


@pytest.mark.parametrize("cell", [0, -1, 9])
def test_a_cell_that_is_no_part_of_the_grid_is_a_one_line_error(cell: int) -> None:
    with pytest.raises(ConfigError, match=f"cell={cell} patches must be at least 1 and at most the grid, 8"):
        masking.create("simmim", embed_dim=8, grid=(8, 8), cell=cell)
