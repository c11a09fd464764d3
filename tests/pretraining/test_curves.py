"""Curves in a record: true means of all iterations, whatever the logs do and however often a run is interrupted."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlomae.pretraining import curves as curves_module
from mlomae.pretraining.curves import POINTS, LossCurves
from mlomae.pretraining.feedback_gate import FeedbackGate
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep

Losses = list[dict[str, float]]


def expected(found: Losses, name: str, width: int) -> list[float | None]:
    """Plain means over intervals of ``width`` iterations, to five digits."""
    means = []
    for start in range(0, len(found), width):
        values = [losses[name] for losses in found[start : start + width] if name in losses]
        means.append(float(f"{sum(values) / len(values):.5g}") if values else None)
    return means


def alike(a: list[float | None], b: list[float | None]) -> bool:
    """Equal but for the last of five digits, which an order of summation may change."""
    pairs = list(zip(a, b, strict=True))
    return all(x == y or (None not in (x, y) and x == pytest.approx(y, rel=2e-4, abs=1e-12)) for x, y in pairs)


def random_losses(n: int, every: int) -> Losses:
    """Of n iterations, the upper one in every n-th."""
    draw = np.random.default_rng(n)
    return [{"lower": draw.normal(), **({"upper": draw.normal()} if t % every == 0 else {})} for t in range(n)]


def add(curves: LossCurves, found: Losses, start: int = 0) -> None:
    for t, losses in enumerate(found[start:], start):
        for name, value in losses.items():
            curves.add(t, name, torch.tensor(value, dtype=torch.float64))


def saved(curves: LossCurves) -> dict[str, Any]:
    """Its state by way of a checkpoint's bytes."""
    file = io.BytesIO()
    torch.save(curves.state_dict(), file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 1200), st.integers(1, 40), st.integers(1, 100), st.floats(0, 1))
def test_points_are_means_of_all_iterations_also_after_a_resume(n: int, every: int, settled: int, cut: float) -> None:
    found, whole = random_losses(n, every), LossCurves(n)
    add(whole, found)
    whole.settle()
    means = whole.means()
    steps = means.pop("iteration")
    width = math.ceil(n / POINTS)
    assert len(steps) <= POINTS
    assert steps == [*range(width, n, width), n]
    for name, values in means.items():
        assert len(values) == len(steps)
        assert alike(values, expected(found, name, width))

    at = settled * int(cut * n / settled)  # interrupted somewhere behind the last checkpoint
    first, second = LossCurves(n), LossCurves(n)
    add(first, found[:at])
    first.settle()
    second.load_state_dict(saved(first))
    add(first, found, at)  # lost
    add(second, found, at)
    second.settle()
    again = second.means()
    assert again.pop("iteration") == steps
    for name, values in again.items():
        assert alike(values, means[name])


def test_nothing_waits_for_the_device_before_it_is_settled() -> None:
    curves = LossCurves(10)
    for t in range(10):
        curves.add(t, "loss_lower", torch.zeros((), device="meta"))  # which has no value to wait for
    with pytest.raises((RuntimeError, NotImplementedError)):
        curves.settle()


def test_ranks_are_averaged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_rank_has_three_times_as_much(data: torch.Tensor, op: str) -> None:
        assert op == "mean"
        data.mul_(2.0)

    monkeypatch.setattr(curves_module, "all_reduce", other_rank_has_three_times_as_much)
    curves = LossCurves(4)
    for t in range(4):
        curves.add(t, "a", torch.tensor(float(t)))
        curves.settle()
        curves.settle()
    assert curves.means() == {"iteration": [1, 2, 3, 4], "a": [0.0, 2.0, 4.0, 6.0]}


def test_values_may_stand_for_several_and_nothing_is_no_curve() -> None:
    curves = LossCurves(2)
    assert curves.means() == {}
    curves.add(0, "accuracy", torch.tensor(300.0), 8)
    curves.add(1, "accuracy", torch.tensor(0.0), 0)
    curves.settle()
    assert curves.means() == {"iteration": [1, 2], "accuracy": [37.5, None]}


# --- whole runs -----------------------------------------------------------------------------------------------------


def record(work: Path) -> dict[str, Any]:
    return dict(json.loads((work / "record.json").read_text()))


@pytest.mark.parametrize("run", ["learned_run", "random_run"])
def test_the_record_agrees_with_the_log(run: str, request: pytest.FixtureRequest) -> None:
    work = request.getfixturevalue(run)
    curves = record(work)["curves"]
    assert curves.pop("iteration") == list(range(1, 11))
    levels = {"loss_lower", "loss_head", "loss_upper", "feedback_accuracy"}
    assert curves.keys() == {"reconstruction_error", *(levels if run == "learned_run" else ["loss_lower"])}
    rows = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    for name in curves.keys() - {"feedback_accuracy"}:
        pairs = zip(curves[name][::2], curves[name][1::2], strict=True)
        assert [sum(pair) / 2 for pair in pairs] == pytest.approx([row[name] for row in rows], rel=1e-4)
    if run == "learned_run":
        assert [v is None for v in curves["feedback_accuracy"]] == [True] * 9 + [False]


SLOW_START = {"name": "curves", "data__eval": None, "levels": {"warmup": 4, "upper_every": 3}}


class Killed(Exception):
    pass


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], tuple[Losses, list[tuple[float, int]]]]:
    """Arms a run: intervals of 3 iterations, to die before outer iteration t; what it saw is filled in."""
    monkeypatch.setattr(curves_module, "POINTS", 4)
    step, probe = PretrainStep.__call__, FeedbackGate.add

    def arm(dies: int | None) -> tuple[Losses, list[tuple[float, int]]]:
        losses: Losses = []
        probes: list[tuple[float, int]] = []

        def counted(self: PretrainStep, data: dict[str, Any], t: int) -> dict[str, torch.Tensor]:
            if t == dies:
                raise Killed
            found = step(self, data, t)
            losses.append({name: loss.item() for name, loss in found.items()})
            return found

        def add_probe(self: FeedbackGate, right: float, judged: int) -> None:
            probes.append((right, judged))
            probe(self, right, judged)

        monkeypatch.setattr(PretrainStep, "__call__", counted)
        monkeypatch.setattr(FeedbackGate, "add", add_probe)
        return losses, probes

    return arm


def killed_and_resumed(work: Path, arm: Callable[[int | None], Any], *deaths: int, **changes: Any) -> dict[str, Any]:
    """The curves of a run that dies before each of these iterations, and at last goes on with ``changes``."""
    for dies in deaths:
        arm(dies)
        with pytest.raises(Killed):
            run_pretraining(tiny.config(**SLOW_START), work, resume=True)
    arm(None)
    return dict(run_pretraining(tiny.config(**SLOW_START, **changes), work, resume=True)["curves"])


def test_a_killed_run_has_the_curves_of_one_that_was_not(
    watched: Callable[[int | None], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, probes = watched(None)
    curves = run_pretraining(tiny.config(**SLOW_START), tmp_path / "straight")["curves"]
    assert curves["iteration"] == [3, 6, 9, 10]
    for name in ("loss_lower", "loss_head", "loss_upper"):
        assert curves[name] == expected(losses, name, 3)
    assert curves["loss_upper"][0] is None  # φ rests for four iterations
    ((right, judged),) = probes
    assert curves["feedback_accuracy"] == [None] * 3 + [float(f"{100 * right / judged:.5g}")]

    # the checkpoints before iterations 5 and 9 are those after 4 and 8, within intervals of 3
    assert killed_and_resumed(tmp_path / "killed", watched, 5, 9) == curves
    more = {"train__log_interval": 5, "train__checkpoint_interval": 3}
    assert killed_and_resumed(tmp_path / "logs less", watched, 5, **more) == curves

    monkeypatch.setattr(LossCurves, "load_state_dict", lambda self, state: None)
    lost = killed_and_resumed(tmp_path / "forgets", watched, 5)
    assert lost["loss_lower"][0] is None
    assert lost["loss_lower"][1] != curves["loss_lower"][1]
