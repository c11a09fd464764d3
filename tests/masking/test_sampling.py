"""Ranks, hints, noise, object patches, cells and rectangles of patches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlomae.masking.sampling import cells, gumbel, inside, object_patches, ranks, rectangle, uncover

GRID = (4, 4)


@given(values=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_ranks_against_sorting_pairs(values: list[tuple[int, int]]) -> None:
    scores, ties = torch.tensor(values, dtype=torch.float32).T[:, None]
    order = sorted(range(len(values)), key=lambda i: (*values[i], i))
    assert ranks(scores, ties)[0].tolist() == [order.index(i) for i in range(len(values))]


def test_uncover_keeps_the_order_of_the_rest() -> None:
    order, noise = torch.tensor([[4, 0, 3, 1, 2]]), torch.tensor([[0.1, 0.9, 0.8, 0.7, 0.6]])
    assert uncover(order, 3, 1, noise).tolist() == [[4, 0, -2, 1, 2]]
    assert uncover(order, 3, 0, noise).tolist() == order.tolist()


@pytest.mark.parametrize(("covered", "is_object"), [(0, False), (4, False), (5, True), (16, True)])
def test_a_patch_is_object_above_a_quarter_of_its_area(covered: int, is_object: bool) -> None:
    objects = torch.zeros(1, 16, 16, dtype=torch.bool)
    objects[0, 4:8, 8:12] = (torch.arange(16) < covered).view(4, 4)  # patch (1, 2)
    assert object_patches(objects, GRID).nonzero().tolist() == ([[0, 6]] if is_object else [])


def test_gumbel_noise_is_finite_at_the_ends_of_the_interval() -> None:
    assert gumbel(torch.tensor([2**-24, 1 - 2**-24])).isfinite().all()


@pytest.mark.parametrize(("grid", "side"), [((4, 6), 2), ((5, 3), 2), ((3, 3), 3), ((2, 2), 1)])
def test_cells_are_numbered_row_by_row(grid: tuple[int, int], side: int) -> None:
    across = -(-grid[1] // side)
    expected = [row // side * across + column // side for row in range(grid[0]) for column in range(grid[1])]
    assert cells(grid, side).tolist() == expected


def test_a_rectangle_is_where_rows_and_columns_meet() -> None:
    rows, columns = (
        inside(torch.tensor([1, 0]), torch.tensor([2, 1]), 3),
        inside(torch.tensor([0, 2]), torch.tensor([1, 2]), 4),
    )
    assert rows.tolist() == [[False, True, True], [True, False, False]]
    found = rectangle(rows, columns)
    assert found.nonzero().tolist() == [[0, 1, 0], [0, 2, 0], [1, 0, 2], [1, 0, 3]]
