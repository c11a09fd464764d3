"""A strategy may choose another mask ratio for every training batch: one number for all images, ranks and chunks."""

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking import Mask, MaskingStrategy
from mlomae.pretraining.pretrainer import Pretrainer

RATIOS = (0.25, 0.5, 0.75)


def drawn(strategy: MaskingStrategy, ratio: float, key: int) -> float:
    return RATIOS[int(3 * random_keys.uniform(torch.tensor(key), 1))]


def removed(
    monkeypatch: pytest.MonkeyPatch,
    iterations: range,
    images: slice = slice(None),
    rule: Callable[..., float] | None = drawn,
    **changes: Any,
) -> list[list[int]]:
    """Removed patches of every image, one list for every mask that training asks for in ``iterations``."""
    model, data = tiny.trainer(tiny.config(**{**tiny.RANDOM, **changes}))
    if rule is not None:
        monkeypatch.setattr(type(model.mask), "batch_ratio", rule)
    choose, seen = model.choose_mask, []

    def watched(tokens: torch.Tensor, batch: dict[str, Any]) -> Mask:
        mask = choose(tokens, batch)
        seen.append(mask.mask.sum(dim=1).int().tolist())
        return mask

    monkeypatch.setattr(model, "choose_mask", watched)
    step = tiny.step_of(model)
    for t in iterations:
        lower = [{k: v[images] for k, v in batch.items()} for batch in data.batches[t]["lower"]]
        step({**data.batches[t], "lower": lower}, t)
    return seen


def test_each_batch_has_one_ratio_and_each_another(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = removed(monkeypatch, range(8))
    assert len(seen) == 8 * 2  # K = 2
    assert all(len(counts) == 8 and len(set(counts)) == 1 for counts in seen)
    assert {counts[0] for counts in seen} == {4, 8, 12}


def test_ranks_and_resumed_runs_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [counts[0] for counts in removed(monkeypatch, range(8))]
    assert [counts[0] for counts in removed(monkeypatch, range(8), slice(4, 8))] == whole
    assert [counts[0] for counts in removed(monkeypatch, range(5, 8))] == whole[10:]
    assert [counts[0] for counts in removed(monkeypatch, range(8), seed=1)] != whole


def test_chunks_of_a_batch_share_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [counts[0] for counts in removed(monkeypatch, range(4))]
    chunks = removed(monkeypatch, range(4), train__accumulate=2)
    assert chunks == [[count] * 4 for count in whole for _ in range(2)]


def test_random_masks_of_the_warm_up_have_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = {"method": "learned", "mask": {"type": "learned", "hidden": 16}, "levels__warmup": 3}
    assert {counts[0] for counts in removed(monkeypatch, range(3), **learned)} == {4, 8, 12}


def test_outside_training_the_configured_ratio_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny.trainer(tiny.config(**tiny.RANDOM))
    monkeypatch.setattr(type(model.mask), "batch_ratio", drawn)
    probe = data.probe
    assert (model.choose_mask(model.mae.encoder.embed(probe["image"]), probe).mask.sum(dim=1) == 12).all()


def test_random_ratio_trains_with_ratios_from_all_of_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = {"type": "random_ratio", "ratio": 0.75, "low": 0.3, "high": 0.8}
    seen = removed(monkeypatch, range(20), rule=None, mask=mask)
    assert all(len(set(counts)) == 1 for counts in seen)
    assert {counts[0] for counts in seen} == set(range(5, 14))  # 16 patches, ⌊0.7 · 16⌋ = 11 to ⌊0.2 · 16⌋ = 3 kept


def test_a_ratio_that_the_strategy_refuses_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(strategy: MaskingStrategy, length: int, ratio: float) -> None:
        raise ConfigError(f"{length} patches, ratio {ratio}")

    monkeypatch.setattr(MaskingStrategy, "check_ratio", refuse)
    with pytest.raises(ConfigError, match=r"16 patches, ratio 0\.75"):
        Pretrainer(tiny.config(**tiny.RANDOM), tiny.CLASSES)


def test_compiling_is_refused_where_every_batch_has_its_own_ratio() -> None:
    with pytest.raises(ConfigError, match=r"mask\.type='random_ratio' draws; set train\.compile=False") as error:
        Pretrainer(tiny.config(mask={"type": "random_ratio"}, train__compile=True), tiny.CLASSES)
    assert "\n" not in str(error.value)
