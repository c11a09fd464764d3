"""Prediction and roll-out against each other: for one small step the two are one number."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from mlomae.common.errors import TrainingError
from mlomae.diagnostics.horizon.effects import Policies, RollOut, predict, weighted_loss
from mlomae.multilevel import AdamPreconditioner
from mlomae.pretraining.losses import lower
from mlomae.pretraining.pretrainer import Pretrainer

NAMES = ("object", "error", "contrast", "random_1", "random_2")
RATE, STRENGTH = 1e-5, 0.5
Batches = dict[str, dict[str, Any]]


def wide(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "image": batch["image"].double()}


def prepare(feedback: str = "nca", **changes: Any) -> tuple[Pretrainer, Batches]:
    """A tiny model in float64 and one batch of each level."""
    model, data = tiny.trainer(tiny.config(feedback={"type": feedback}, data__eval=None, **changes, **tiny.RANDOM))
    lower = data.batches.lower
    indices = {"head": data.split.train_indices, "upper": data.split.val_indices}
    streams = {level: type(lower)(data.train, chosen, lower.augment, 3, level) for level, chosen in indices.items()}
    batches = {level: wide(stream.batch(0, 16)) for level, stream in {**streams, "lower": lower}.items()}
    return model.double().eval(), batches


def sgd(model: Pretrainer) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.level_parameters()["theta"].values(), lr=RATE)


def one_step(
    model: Pretrainer, batches: Batches, policies: Policies, optimizer: Callable[[Pretrainer], torch.optim.Optimizer]
) -> list[float]:
    """D(1) / rate of every policy."""
    roll_out = RollOut(model, lambda: optimizer(model), batches["head"], batches["upper"])
    found = []
    for name in NAMES:
        (up,), (down,) = (
            roll_out(lambda t: batches["lower"], lambda b, e=e, name=name: 1.0 + e * policies(name, b), [1])
            for e in (STRENGTH, -STRENGTH)
        )
        found.append((up.loss - down.loss) / (2 * STRENGTH * RATE))
    return found


@pytest.mark.parametrize(("feedback", "accumulate"), [("nca", 1), ("ridge", 1), ("nca", 2)])
def test_one_sgd_step_does_what_the_influence_says(feedback: str, accumulate: int) -> None:
    model, batches = prepare(feedback, train__accumulate=accumulate)
    policies = Policies(model, seed=0, limit=1 / STRENGTH)
    triple = (batches["lower"], batches["head"], batches["upper"])
    plain = AdamPreconditioner(torch.optim.Adam(model.mae.parameters()), model.level_parameters()["theta"])
    predicted, same = predict(model, policies, NAMES, [triple], plain, chunks=accumulate)
    assert torch.equal(predicted, same), "an optimizer without state scales nothing"
    assert len({round(float(p), 12) for p in predicted[0]}) == len(NAMES)
    assert one_step(model, batches, policies, sgd) == pytest.approx(predicted[0].tolist(), rel=1e-3)


def test_one_adam_step_does_what_the_scaled_influence_says() -> None:
    """Without momentum, and with second moments that one step cannot move, AdamW is SGD in the scale of P."""
    model, batches = prepare()
    policies = Policies(model, seed=0, limit=1 / STRENGTH)

    def frozen_adam(model: Pretrainer) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(
            model.level_parameters()["theta"].values(), lr=RATE, betas=(0.0, 1 - 1e-9), weight_decay=0.0
        )
        generator = torch.Generator().manual_seed(0)
        for p in model.level_parameters()["theta"].values():
            moments = 1e-4 * 100 ** torch.rand(p.shape, generator=generator, dtype=p.dtype)
            optimizer.state[p] = {
                "step": torch.tensor(1e6),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": moments,
            }
        return optimizer

    precondition = AdamPreconditioner(frozen_adam(model), model.level_parameters()["theta"])
    triple = (batches["lower"], batches["head"], batches["upper"])
    plain, scaled = predict(model, policies, NAMES, [triple], precondition)
    real = one_step(model, batches, policies, frozen_adam)
    assert real == pytest.approx(scaled[0].tolist(), rel=1e-3)
    assert real != pytest.approx(plain[0].tolist(), rel=0.1)


def weights_after(model: Pretrainer, batches: Batches, weight: Callable[[dict], Tensor], steps: int) -> dict:
    roll_out = RollOut(model, lambda: adam(model), batches["head"], batches["upper"])
    before = copy.deepcopy(model.mae.state_dict())
    roll_out(lambda t: {**batches["lower"], "key": batches["lower"]["key"] + t}, weight, [steps])
    after = copy.deepcopy(model.mae.state_dict())
    model.mae.load_state_dict(before)
    return after


def adam(model: Pretrainer) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.level_parameters()["theta"].values(), lr=1e-3)


def test_without_strength_both_roll_outs_are_one() -> None:
    model, batches = prepare()
    policies = Policies(model, seed=0)
    up, down, plain, other = (
        weights_after(model, batches, weight, 3)
        for weight in (
            lambda b: 1.0 + 0.0 * policies("error", b),
            lambda b: 1.0 - 0.0 * policies("error", b),
            lambda b: torch.ones_like(b["mask"]["mask"]),
            lambda b: 1.0 + 0.5 * policies("error", b),
        )
    )
    assert tiny.differences(up, down) == []
    assert tiny.differences(up, plain) == []
    assert tiny.differences(up, other) != []
    assert tiny.differences(up, model.mae.state_dict()) != [], "and they did train"


def test_every_roll_out_starts_at_the_checkpoint() -> None:
    model, batches = prepare()
    roll_out = RollOut(model, lambda: adam(model), batches["head"], batches["upper"])
    first, second = (
        roll_out(lambda t: batches["lower"], lambda b: torch.ones_like(b["mask"]["mask"]), [1, 3]) for _ in range(2)
    )
    assert first == second
    assert first[0] != first[1]


def test_the_weighted_loss_is_the_runs_own_where_all_weights_are_one() -> None:
    model, batches = prepare()
    ones = torch.ones(16, 16, dtype=torch.float64)
    loss = weighted_loss(model, {**batches["lower"], "weight": ones})
    assert loss.item() == pytest.approx(lower(model, batches["lower"]).item(), rel=1e-12)
    assert weighted_loss(model, {**batches["lower"], "weight": 2 * ones}).item() == pytest.approx(2 * loss.item())


def test_a_roll_out_that_diverges_says_so() -> None:
    model, batches = prepare()
    roll_out = RollOut(
        model,
        lambda: torch.optim.SGD(model.level_parameters()["theta"].values(), lr=1e200),
        batches["head"],
        batches["upper"],
    )
    with pytest.raises(TrainingError, match="not finite after 2 steps"):
        roll_out(lambda t: batches["lower"], lambda b: torch.ones_like(b["mask"]["mask"]), [2])
