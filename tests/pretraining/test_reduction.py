"""The mean over ranks: in buckets, without a copy at one process, and while the gradient is still computed at two."""

from functools import partial
from typing import Any

import pytest
import torch
from on_two_ranks import in_two_forks
from torch import Tensor

from mlomae.multilevel import OuterStep, ThreeLevelProblem
from mlomae.pretraining import reduction
from mlomae.pretraining.devices import join_process_group
from mlomae.pretraining.reduction import MeanWhile, buckets, mean_over_ranks

LAYERS = 6


def numbers(rank: int) -> dict[str, Tensor]:
    """Of every size and layout that a gradient may have, the same names on each rank."""
    generator = torch.Generator().manual_seed(rank)
    shapes = {"scalar": (), "vector": (7,), "matrix": (3, 5), "nothing": (0, 4)}
    drawn = {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in shapes.items()}
    return drawn | {
        "other": torch.randn(4, generator=generator),
        "turned": drawn["matrix"].T,
        "spread": drawn["scalar"].expand(3),
    }


def network(rank: int) -> tuple[dict[str, Tensor], Any]:
    """θ, the same on each rank, with an entry that the loss does not use; and the loss of this rank's data."""
    generator = torch.Generator().manual_seed(7)
    theta = {f"w{i}": torch.randn(5, 5, generator=generator, dtype=torch.float64) for i in range(LAYERS)}
    theta = {k: t.requires_grad_() for k, t in {**theta, "unused": torch.ones(3, dtype=torch.float64)}.items()}
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)

    def loss(params: dict[str, Tensor]) -> Tensor:
        y = x
        for i in range(LAYERS):
            y = torch.tanh(y @ params[f"w{i}"])
        return y.square().sum()

    return theta, loss


def gradient(theta: dict[str, Tensor], value: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(theta.values()), allow_unused=True)
    return {k: g for k, g in zip(theta, found, strict=True) if g is not None}


def test_buckets_keep_the_order_and_hold_one_dtype_and_no_more_than_the_limit() -> None:
    sizes = {"a": 3, "b": 3, "c": 9, "d": 1, "e": 1}
    tensors = {k: torch.zeros(n, dtype=torch.float32) for k, n in sizes.items()}
    assert buckets(tensors, tensors, limit=24) == [["a", "b"], ["c"], ["d", "e"]]
    tensors["d"] = tensors["d"].double()
    assert buckets(tensors, tensors, limit=1000) == [["a", "b", "c"], ["d"], ["e"]]
    assert buckets([], tensors) == []


def test_one_process_copies_nothing() -> None:
    tensors = numbers(0)
    assert mean_over_ranks(tensors) is tensors


@pytest.mark.parametrize("limit", [1, 100, 10_000])
def test_the_mean_of_two_ranks_is_the_mean(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "BUCKET", limit)

    def call(rank: int) -> None:
        join_process_group()
        own = numbers(rank)
        before = {k: t.clone() for k, t in own.items()}
        found = mean_over_ranks(own)
        assert list(found) == list(own)
        for name, t in found.items():
            assert torch.equal(t, (numbers(0)[name] + numbers(1)[name]) / 2), name
            assert t.dtype == own[name].dtype
            assert torch.equal(own[name], before[name]), "what is averaged stays as it is"

    in_two_forks(call)


@pytest.mark.parametrize("limit", [1, 450, 10_000])  # a matrix is 200 bytes
def test_a_gradient_that_is_averaged_while_it_is_made_is_the_averaged_gradient(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduction, "BUCKET", limit)

    def call(rank: int) -> None:
        join_process_group()
        mean = MeanWhile()
        for _ in range(3):
            theta, loss = network(rank)
            expected = mean_over_ranks(gradient(theta, loss(theta)))
            found = mean(theta, partial(gradient, theta, loss(theta)))
            assert list(found) == list(expected) == [f"w{i}" for i in range(LAYERS)]
            assert all(torch.equal(found[k], expected[k]) for k in found)

    in_two_forks(call)


def test_buckets_leave_before_the_last_gradient_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "BUCKET", 450)

    def call(rank: int) -> None:
        join_process_group()
        events: list[str] = []
        send = reduction._Sent.__init__

        def watched(self: Any, tensors: dict[str, Tensor]) -> None:
            events.append("sends " + " ".join(tensors))
            send(self, tensors)

        reduction._Sent.__init__ = watched  # type: ignore[method-assign]
        mean = MeanWhile()
        for _ in range(2):
            theta, loss = network(rank)
            for name, t in theta.items():
                t.register_hook(lambda g, name=name: events.append(f"makes {name}"))
            events.clear()
            mean(theta, partial(gradient, theta, loss(theta)))
        made = [f"makes w{i}" for i in reversed(range(LAYERS))]
        assert events == [*made[:2], "sends w5 w4", *made[2:4], "sends w3 w2", *made[4:], "sends w1 w0"]

    in_two_forks(call)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_takes_the_reduction_during_the_gradient_or_after_its_chunks(accumulate: int) -> None:
    """θ moves by the reduced gradient either way; the doubles below stand for reductions."""
    theta, _ = network(0)
    theta = {"w0": theta["w0"]}
    problem = ThreeLevelProblem(
        lower=lambda theta, phi, batch: (batch @ theta["w0"]).square().sum(dim=1).mean(),
        features=lambda theta, batch: batch,
        head_loss=lambda omega, z, batch: z.sum(),
    )
    batch = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    calls: list[str] = []

    def during(leaves: dict[str, Tensor], backward: Any) -> dict[str, Tensor]:
        calls.append("during")
        return {k: 3 * g for k, g in backward().items()}

    def after(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        calls.append("after")
        return {k: 3 * g for k, g in tensors.items()}

    before = theta["w0"].detach().clone()
    (g,) = torch.autograd.grad(problem.lower(theta, {}, batch), [theta["w0"]])
    optimizer = torch.optim.SGD(theta.values(), lr=0.1)
    step = OuterStep(
        problem,
        theta,
        {},
        {},
        optimizers={"theta": optimizer},
        reduce=after,
        reduce_during=during,
        accumulate=accumulate,
    )
    step([batch], None, None)
    assert calls == ["during" if accumulate == 1 else "after"]
    torch.testing.assert_close(theta["w0"].detach(), before - 0.3 * g, rtol=1e-12, atol=1e-12)
