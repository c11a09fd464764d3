"""Grid masks: one visible patch in every 2x2 cell, at ratio 0.75 and on even grids only."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys as counter
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState


def corners(batch: int, grid: tuple[int, int] = (8, 6), **options: str) -> Tensor:
    """(batch, cells, 4) patches that are visible, by cell and corner (row by row)."""
    strategy = masking.create("grid", embed_dim=8, grid=grid, **options)
    state = MaskState(counter.fold(counter.root_key(0, "grid"), torch.arange(batch)))
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
    with pytest.raises(ConfigError, match=r"corner='top'.*random, shared"):
        masking.create("grid", embed_dim=8, grid=(8, 8), corner="top")
