"""Block masks: one visible square, or contiguous removed blocks cut to the budget.

Shape legend: B images, L patches, T blocks.
"""

import math

import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import MaskState, keep_count
from mlomae.masking.strategies import block as module
from mlomae.masking.strategies.block import BLOCKS, place_blocks

Grid = tuple[int, int]
GRIDS = [(8, 8), (14, 14), (5, 9)]


def state(batch: int) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(0, "block"), torch.arange(batch)))


def draw(batch: int, grid: Grid, ratio: float = 0.75, **options: object) -> Tensor:
    """Masks (batch, gh, gw)."""
    strategy = masking.create("block", embed_dim=8, grid=grid, **options)
    return strategy(torch.zeros(0), torch.zeros(0), ratio, 0, state(batch)).mask.view(batch, *grid)


def place(
    batch: int, grid: Grid, budget: int, smallest: float = 5.0, aspect: float = 0.3, blocks: int = BLOCKS
) -> tuple[Tensor, Tensor]:
    """Which block covers a patch (batch, gh, gw), and the order of the patches that seed the blocks (batch, L)."""
    uniform, order = state(batch).uniform(4 * blocks).unflatten(1, (blocks, 4)), state(batch).uniform(math.prod(grid))
    return place_blocks(uniform, order, grid, budget, smallest, aspect).view(batch, *grid), order


def box(cells_HW: Tensor) -> tuple[slice, slice]:
    """The smallest rectangle around the cells that are True."""
    rows, columns = (cells_HW.any(dim=dim).nonzero().flatten() for dim in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


# --- one visible square ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "visible"), [(8, 4), (14, 7), (4, 2)])
def test_what_is_visible_is_one_square(side: int, visible: int) -> None:
    for mask in draw(100, (side, side), variant="square"):
        rows, columns = box(mask == 0)
        assert (rows.stop - rows.start, columns.stop - columns.start) == (visible, visible)
        assert (mask[rows, columns] == 0).all()


def test_the_square_is_anywhere_with_the_same_chance() -> None:
    places = draw(10_000, (8, 8), variant="square").flatten(1).argmin(dim=1)  # its upper left corner
    _, counts = places.unique(return_counts=True)
    assert len(counts) == 25
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("grid", [(8, 8), (2, 16), (16, 2), (5, 9)])
@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.75, 0.9])
def test_a_number_that_is_no_square_lacks_the_end_of_the_bottom_row(grid: Grid, ratio: float) -> None:
    kept = keep_count(math.prod(grid), ratio)
    for mask in draw(50, grid, ratio, variant="square"):
        rows, columns = box(mask == 0)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert width <= math.isqrt(kept - 1) + 1 or height == grid[0]
        assert 0 <= height * width - kept < width
        inside = mask[rows, columns].flatten()
        assert (inside[:kept] == 0).all()
        assert (inside[kept:] == 1).all()


# --- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS)
def test_what_a_block_adds_is_a_rectangle_but_for_earlier_blocks(grid: Grid) -> None:
    """A patch in the rectangle around what block t covers first is covered by t or an earlier one."""
    covered_by, _ = place(60, grid, budget=int(0.75 * math.prod(grid)))
    for each in covered_by:
        for t in range(int(each[each < BLOCKS].max()) + 1):
            assert (each[box(each == t)] <= t).all()


def test_every_block_covers_the_first_visible_patch_of_the_order() -> None:
    covered_by, order = place(60, (8, 8), budget=48)
    for each, rank in zip(covered_by.flatten(1), order, strict=True):
        for t in range(int(each[each < BLOCKS].max()) + 1):
            visible = each >= t
            assert each[(rank * visible).argmax()] == t


def test_blocks_stop_at_the_budget_and_only_the_last_one_may_exceed_it() -> None:
    covered_by, _ = place(500, (8, 8), budget=48)
    for each in covered_by:
        last = each[each < BLOCKS].max()
        assert (each < last).sum() < 48 <= (each < BLOCKS).sum()


def test_the_area_of_a_block_is_uniform_and_its_sides_are_within_the_aspect() -> None:
    covered_by, _ = place(3_000, (64, 64), budget=1_000, smallest=200.0, blocks=1)
    sizes = [(r.stop - r.start, c.stop - c.start) for r, c in (box(each == 0) for each in covered_by)]
    area = torch.tensor([h * w for h, w in sizes], dtype=torch.float64)
    log_aspect = torch.tensor([math.log(h / w) for h, w in sizes], dtype=torch.float64)
    assert stats.kstest(area, stats.uniform(200, 800).cdf).statistic < 0.03  # sides are whole numbers
    assert stats.kstest(log_aspect, stats.uniform(math.log(0.3), -2 * math.log(0.3)).cdf).statistic < 0.03
    assert abs(stats.pearsonr(area, log_aspect).statistic) < 0.06


@pytest.mark.parametrize("ratio", [0.4, 0.75])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_mask_is_the_blocks_less_the_first_patches_of_the_last(grid: Grid, ratio: float) -> None:
    length = math.prod(grid)
    budget = length - keep_count(length, ratio)
    uniform_BT4 = state(100).uniform(4 * BLOCKS).unflatten(1, (BLOCKS, 4))
    covered_by = place_blocks(uniform_BT4, state(100).uniform(length, salt=1), grid, budget, 0.08 * length, 0.3)
    for mask, each in zip(draw(100, grid, ratio).flatten(1), covered_by, strict=True):
        expected = (each < BLOCKS).float()
        last = (each == each[each < BLOCKS].max()).nonzero().flatten()
        expected[last[: int(expected.sum()) - budget]] = 0
        assert torch.equal(mask, expected)


@pytest.mark.parametrize("ratio", [0.4, 0.75])
def test_removed_regions_are_few_and_large(ratio: float) -> None:
    random = masking.create("random", embed_dim=8, grid=(14, 14))
    scattered = random(torch.zeros(0), torch.zeros(0), ratio, 0, state(100)).mask.view(-1, 14, 14)
    regions, holes = (
        [
            sum(ndimage.label(mask.numpy() == value)[1] for mask in masks)
            for masks in (draw(100, (14, 14), ratio), scattered)
        ]
        for value in (1, 0)
    )
    assert regions[0] < 250
    assert holes[0] < holes[1] / 4
    assert ratio > 0.5 or regions[0] < regions[1] / 4  # at 0.75 random patches touch each other, too


def test_where_the_blocks_do_not_suffice_random_patches_make_up_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCKS", 1)
    covered_by, _ = place(200, (8, 8), budget=48, smallest=0.08 * 64, blocks=1)
    mask = draw(200, (8, 8))
    assert (mask.sum(dim=(1, 2)) == 48).all()
    short = ((covered_by < 1).sum(dim=(1, 2)) < 48).nonzero().flatten()
    assert len(short) > 100
    spare = mask[short].sum(dim=(1, 2)) - (covered_by[short] < 1).sum(dim=(1, 2))
    assert (spare > 0).all()


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (14, 14), (16, 16)])
def test_the_blocks_suffice_for_nearly_every_image(grid: Grid) -> None:
    length = math.prod(grid)
    budget = length - keep_count(length, 0.75)
    covered_by, _ = place(3_000, grid, budget, smallest=0.08 * length)
    assert ((covered_by < BLOCKS).sum(dim=(1, 2)) < budget).float().mean() < 1e-3


# --- bad input ------------------------------------------------------------------------------------------------------


def test_unknown_variant_is_a_one_line_error() -> None:
    with pytest.raises(ConfigError, match=r"'variant' .* one of beit, square; got 'disc'"):
        masking.create("block", embed_dim=8, grid=(8, 8), variant="disc")


@pytest.mark.parametrize(
    "options",
    [{"smallest": -0.1}, {"smallest": 1.0}, {"smallest": math.nan}, {"aspect": 0.0}, {"aspect": 1.1}],
    ids=str,
)
def test_sizes_out_of_range_are_a_one_line_error(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"'{next(iter(options))}' .* must be (inside|a number)") as error:
        masking.create("block", embed_dim=8, grid=(8, 8), **options)
    assert "\n" not in str(error.value)
