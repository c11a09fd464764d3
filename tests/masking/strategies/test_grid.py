"""Grid: one visible patch in every 2x2 cell, at ratio 0.75 and on even grids only. SimMIM: masks are constant on
coarse cells, which are chosen uniformly."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState, keep_count

# --- grid ------------------------------------------------------------------------------------------------------------


def corners(batch: int, grid: tuple[int, int] = (8, 6), **options: str) -> Tensor:
    """(batch, cells, 4) patches that are visible, by cell and corner (row by row)."""
    strategy = masking.create("grid", embed_dim=8, grid=grid, **options)
    state = MaskState(random_keys.fold(random_keys.root_key(0, "grid"), torch.arange(batch)))
    mask = strategy(torch.zeros(0), torch.zeros(0), 0.75, 0, state).mask.view(batch, *grid)
    cells = [
        mask[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(batch, 4)
        for row in range(grid[0] // 2)
        for column in range(grid[1] // 2)
    ]
    return 1 - torch.stack(cells, dim=1)


@pytest.mark.parametrize("corner", ["random", "shared"])
def test_every_cell_shows_exactly_one_patch(corner: str) -> None:
    assert (corners(200, corner=corner).sum(dim=-1) == 1).all()


@pytest.mark.parametrize("corner", ["random", "shared"])
def test_every_corner_is_as_likely(corner: str) -> None:
    shown = corners(4_000, corner=corner)[:, 5].sum(dim=0)
    assert stats.chisquare(shown).pvalue > 1e-3


def test_random_corners_of_two_cells_are_independent() -> None:
    shown = corners(8_000).argmax(dim=-1)
    pairs = torch.bincount(4 * shown[:, 0] + shown[:, 7], minlength=16)
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_a_shared_corner_is_that_of_all_cells_of_an_image() -> None:
    shown = corners(200, corner="shared").argmax(dim=-1)
    assert (shown == shown[:, :1]).all()
    assert shown[:, 0].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("ratio", [0.5, 0.74, 0.76, 0.9])
def test_any_other_ratio_is_a_one_line_error(ratio: float) -> None:
    strategy = masking.create("grid", embed_dim=8, grid=(8, 8))
    for ask in (
        lambda: strategy.check_ratio(64, ratio),  # before training
        lambda: strategy(torch.zeros(0), torch.zeros(0), ratio, 0, MaskState(torch.arange(2))),
    ):
        with pytest.raises(ConfigError, match=rf"must be 0\.75, not {ratio}") as error:
            ask()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("grid", [(7, 8), (8, 7), (1, 1)])
def test_an_odd_side_is_a_one_line_error(grid: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"even numbers of patches, not {grid[0]} x {grid[1]}"):
        masking.create("grid", embed_dim=8, grid=grid)


def test_unknown_corner_is_a_one_line_error() -> None:
    with pytest.raises(ConfigError, match=r"'corner' .* one of random, shared; got 'top'"):
        masking.create("grid", embed_dim=8, grid=(8, 8), corner="top")


# --- simmim ----------------------------------------------------------------------------------------------------------


def draw(batch: int, grid: tuple[int, int], ratio: float, cell: int) -> Tensor:
    """Masks (batch, gh, gw)."""
    strategy = masking.create("simmim", embed_dim=8, grid=grid, cell=cell)
    state = MaskState(random_keys.fold(random_keys.root_key(0, "simmim"), torch.arange(batch)))
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
    with pytest.raises(ConfigError, match=rf"must be inside \[1, 8\]; got {cell}"):
        masking.create("simmim", embed_dim=8, grid=(8, 8), cell=cell)
