"""What a strategy of one's own is told in training: random keys, indices, objects, iteration and progress."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from mlomae.common import random_keys
from mlomae.masking import MaskState, UnweightedMasking, base

STEPS = 3


class Remembering(UnweightedMasking):
    """Random masks; keeps every state that it is given."""

    scheduled = True

    def __init__(self, embed_dim: int, grid: tuple[int, int]) -> None:
        super().__init__(embed_dim, grid)
        self.states: list[MaskState] = []

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        self.states.append(state)
        return state.uniform(self.length)


class Unscheduled(Remembering):
    scheduled = False


def trained(kind: type, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A model with the strategy after STEPS outer iterations, and its data."""
    monkeypatch.setitem(base._STRATEGIES._builders, "remembering", kind)
    changes = {"method": "remembering", "mask": {"type": "remembering", "ratio": 0.75}}
    model, data = tiny.trainer(tiny.config(**changes))
    step = tiny.step_of(model)
    for t in range(STEPS):
        step(data.batches[t], t)
    return model, data


def test_it_is_told_key_index_objects_iteration_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = trained(Remembering, monkeypatch)
    length = model.config.train.outer_iterations
    given = [(t, batch) for t in range(STEPS) for batch in data.batches[t]["lower"]]
    assert len(given) == len(model.mask.states) > STEPS
    for state, (t, batch) in zip(model.mask.states, given, strict=True):
        assert torch.equal(state.key, batch["key"])
        assert torch.equal(state.index, batch["index"])
        assert torch.equal(state.object, batch["object"])
        assert (state.iteration, state.progress, state.fixed) == (t, t / length, None)


def test_an_index_names_the_same_image_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = trained(Remembering, monkeypatch)
    stream = data.batches.lower
    epochs = [stream.batch(epoch * len(stream), len(stream)) for epoch in range(2)]
    assert not torch.equal(*(epoch["key"].sort().values for epoch in epochs)), "keys are drawn anew in every epoch"
    assert torch.equal(*(epoch["index"].sort().values for epoch in epochs))
    labels = [dict(zip(epoch["index"].tolist(), epoch["label"].tolist(), strict=True)) for epoch in epochs]
    assert labels[0] == labels[1]


def test_without_a_schedule_iteration_and_progress_stay_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would make `torch.compile` recompile in every iteration."""
    model, _ = trained(Unscheduled, monkeypatch)
    assert {(state.iteration, state.progress) for state in model.mask.states} == {(0, 0.0)}


def test_after_the_last_iteration_it_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = trained(Remembering, monkeypatch)
    length = model.config.train.outer_iterations
    model.set_progress(length)
    batch = data.batches[0]["lower"][0]
    model.choose_mask(model.mae.encoder.embed(batch["image"]), batch)
    assert model.mask.states[-1].iteration == length - 1


def test_a_key_is_all_that_a_state_needs() -> None:
    state = MaskState(random_keys.fold(0, torch.arange(3)))
    assert (state.object, state.fixed, state.index, state.progress, state.iteration) == (None, None, None, 0.0, 0)
    assert torch.equal(state.uniform(5), replace(state, index=torch.arange(3)).uniform(5))
