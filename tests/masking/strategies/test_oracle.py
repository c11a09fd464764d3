"""The oracle: bias and weight go to the object patches, it needs object masks; its controls know less."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState
from mlomae.masking.strategies.oracle import dilate

GRID = (4, 4)
OBJECT = torch.zeros(16, dtype=torch.bool).index_fill(0, torch.tensor([5, 6, 9, 10]), True)


def pixels(object_L: Tensor, batch: int) -> Tensor:
    """(16,) patches -> (batch, 16, 16) object pixels."""
    return object_L.view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1).expand(batch, -1, -1)


def draw(batch: int = 2_000, object_BSS: Tensor | None = None, **options: Any) -> Mask:
    strategy = masking.create("oracle", embed_dim=8, grid=GRID, **options)
    objects = pixels(OBJECT, batch) if object_BSS is None else object_BSS
    key = random_keys.fold(random_keys.root_key(0, "oracle"), torch.arange(batch))
    return strategy(torch.zeros(batch, 16, 8), torch.zeros(batch, 3, 16, 16), 0.5, 0, MaskState(key, objects))


@pytest.mark.parametrize(("bias", "low", "high"), [(-2, 0, 0.3), (-0.5, 0.3, 0.48), (0.5, 0.52, 0.7), (2, 0.7, 1)])
def test_bias_moves_the_frequency_of_masked_objects(bias: float, low: float, high: float) -> None:
    frequency = draw(bias=bias).mask[:, OBJECT].mean()
    assert low < frequency < high


def test_no_bias_masks_objects_as_often_as_clutter() -> None:
    mask = draw(8_000).mask
    torch.testing.assert_close(mask.mean(0), torch.full((16,), 0.5), atol=0.025, rtol=0)


def test_infinite_odds_are_approached() -> None:
    assert draw(bias=50.0).mask[:, OBJECT].all()
    assert not draw(bias=-50.0).mask[:, OBJECT].any()


@pytest.mark.parametrize("weight", [0.5, 1.0, 5.0])
def test_weight_lies_on_exactly_the_object_patches(weight: float) -> None:
    assert torch.equal(draw(3, weight=weight).weight, torch.where(OBJECT, weight, 1.0).expand(3, -1))


def test_every_image_follows_its_own_objects() -> None:
    objects = torch.cat([pixels(OBJECT, 1), pixels(~OBJECT, 1), pixels(OBJECT & False, 1)])
    assert torch.equal(draw(3, objects, weight=2.0).weight > 1, torch.stack([OBJECT, ~OBJECT, OBJECT & False]))


def test_without_object_masks_it_is_a_one_line_error() -> None:
    strategy = masking.create("oracle", embed_dim=8, grid=GRID)
    with pytest.raises(ConfigError, match="'oracle' needs to know the objects") as error:
        strategy(torch.zeros(2, 16, 8), torch.zeros(2, 3, 16, 16), 0.5, 0, MaskState(torch.arange(2)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [{"bias": float("inf")}, {"bias": float("nan")}, *({"weight": float(w)} for w in ("0", "-1", "inf", "nan"))],
    ids=str,
)
def test_meaningless_bias_or_weight_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"'{next(iter(options))}' of masking strategy 'oracle' must be"):
        masking.create("oracle", embed_dim=8, grid=GRID, **options)


def test_unknown_normalize_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'normalize' .* one of mask, weight; got 'wrong'"):
        masking.create("oracle", embed_dim=8, grid=GRID, normalize="wrong")


# --- controls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patches", ["region", "scattered"])
def test_a_control_has_as_many_patches_as_the_object_and_puts_them_anywhere(patches: str) -> None:
    batch = 8_000
    chosen = draw(batch, patches=patches, weight=2.0).weight > 1
    assert (chosen.sum(dim=1) == OBJECT.sum()).all()
    torch.testing.assert_close(chosen.float().mean(0), torch.full((16,), 0.25), atol=0.025, rtol=0)
    shapes = {tuple(row.tolist()) for row in chosen}
    whole = {
        tuple(OBJECT.view(4, 4).roll(by, (0, 1)).flatten().tolist()) for by in itertools.product(range(4), repeat=2)
    }
    assert (shapes == whole) == (patches == "region")
    assert len(shapes) > 16 or patches == "region"


def test_masks_do_not_depend_on_the_control() -> None:
    masks = [draw(9, patches=patches).mask for patches in ("object", "region", "scattered", "everywhere", "shuffled")]
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_everywhere_is_the_scale_of_the_loss_alone() -> None:
    assert (draw(3, patches="everywhere", weight=7.0).weight == 7.0).all()


@pytest.mark.parametrize("by", [-2, -1, 1, 2])
def test_objects_grow_and_shrink_by_patches(by: int) -> None:
    rows, columns = 5, 6
    given = torch.rand(7, rows, columns, generator=torch.Generator().manual_seed(0)) < (0.2 if by > 0 else 0.8)
    found = dilate(given.flatten(1).float(), (rows, columns), by).view(7, rows, columns)
    for n, r, c in itertools.product(range(7), range(rows), range(columns)):
        near = given[n, max(0, r - abs(by)) : r + abs(by) + 1, max(0, c - abs(by)) : c + abs(by) + 1]
        assert found[n, r, c] == (near.any() if by > 0 else near.all())
    assert draw(1, grow=1, weight=2.0).weight.sum() == 32
    assert draw(1, grow=-1, weight=2.0).weight.sum() == 16
