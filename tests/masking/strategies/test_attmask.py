"""AttMask against planted attention maps; its hints by counting; that the state of the copy survives a resume."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mlomae import masking
from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskState

L, GRID = 64, (8, 8)


def state(count: int, seed: int = 0) -> MaskState:
    return MaskState(random_keys.fold(random_keys.root_key(seed), torch.arange(count)))


def choose(attention_BHL: Tensor, ratio: float = 0.75, seed: int = 0, **options: Any) -> Mask:
    """The mask that a teacher with this attention leads to."""
    strategy = masking.create("attmask", embed_dim=8, grid=GRID, **options)
    strategy.teacher.attention = lambda images: attention_BHL  # type: ignore[union-attr, method-assign, assignment]
    empty = torch.empty(attention_BHL.shape[0], 0)
    return strategy(empty, empty, ratio, 0, state(attention_BHL.shape[0], seed))


def planted(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, L, generator=torch.Generator().manual_seed(seed))


def by_attention(attention_BHL: Tensor) -> Tensor:
    """Patches in descending order of the mean over heads."""
    return attention_BHL.mean(1).argsort(dim=1, descending=True)


def where(mask: Mask) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in mask.mask]


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_high_removes_the_top_and_low_the_bottom(ratio: float) -> None:
    attention, removed = planted(20), int(ratio * L)
    order = by_attention(attention)
    assert where(choose(attention, ratio, variant="high")) == [set(row[:removed].tolist()) for row in order]
    assert where(choose(attention, ratio, variant="low")) == [set(row[-removed:].tolist()) for row in order]


def test_the_heads_are_averaged() -> None:
    """The maximum over heads, or the first one, would pick other patches."""
    attention = torch.zeros(1, 2, L)
    attention[0, 0, :32], attention[0, 1, 32:] = 0.9, 1.0
    attention[0, :, 10] = 0.8
    assert 10 in where(choose(attention, 1 / L, variant="high"))[0]


def test_hints_are_some_of_the_very_highest_and_the_next_ones_go_instead() -> None:
    attention = planted(1).expand(3_000, -1, -1)
    mask, order = choose(attention, variant="hint", show_max=0.2), by_attention(attention[:1])[0].tolist()
    pool, hints, removed = 12, 9, 48  # ⌊0.2 L⌋, ⌊0.2 · 0.75 L⌋
    kept = torch.gather(1 - mask.mask, 1, torch.tensor(order).expand(3_000, -1))  # by descending attention
    assert (kept[:, :pool].sum(1) == hints).all()
    assert (kept[:, pool : removed + hints] == 0).all()
    assert (kept[:, removed + hints :] == 1).all()
    torch.testing.assert_close(kept[:, :pool].mean(0), torch.full((pool,), hints / pool), atol=0.03, rtol=0)


def test_no_hints_are_the_high_variant_and_hints_never_exceed_what_is_visible() -> None:
    attention = planted(8)
    assert where(choose(attention, variant="hint", show_max=0.0)) == where(choose(attention, variant="high"))
    mask = choose(attention, variant="hint", show_max=1.0)
    assert (mask.mask.sum(1) == 48).all()
    assert torch.equal(mask.mask, choose(attention, variant="hint", show_max=1.0).mask)


def test_the_chance_of_an_image_to_be_masked_by_attention() -> None:
    attention = planted(1).expand(2_000, -1, -1)
    high = choose(attention[:1], variant="high").mask
    for prob in (0.0, 0.3, 1.0):
        guided = (choose(attention, variant="high", prob=prob).mask == high).all(dim=1)
        assert float(guided.float().mean()) == pytest.approx(prob, abs=0.04)
    rest = choose(attention, variant="high", prob=0.0).mask.mean(0)
    torch.testing.assert_close(rest, torch.full((L,), 0.75), atol=0.05, rtol=0)


def test_keys_settle_ties_evenly_and_always_alike() -> None:
    attention = torch.ones(2_000, 1, L)
    mask = choose(attention, variant="high").mask
    torch.testing.assert_close(mask.mean(0), torch.full((L,), 0.75), atol=0.05, rtol=0)
    assert torch.equal(mask, choose(attention, variant="high").mask)
    assert not torch.equal(mask, choose(attention, variant="high", seed=1).mask)


@pytest.mark.parametrize(
    "options", [{"variant": "top"}, {"show_max": 1.1}, {"show_max": float("nan")}, {"prob": -0.1}, {"teacher": "dino"}]
)
def test_values_out_of_range_are_refused_in_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        masking.create("attmask", embed_dim=8, grid=GRID, **options)
    assert "\n" not in str(error.value)
    assert str(next(iter(options.values()))) in str(error.value)
