"""Learning rates over a whole run and parameter groups, for the three levels."""

import math
from pathlib import Path
from typing import Any

import mmengine.optim  # noqa: F401  registers the schedulers
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import PARAM_SCHEDULERS

from mlomae.config.schema import OptimConfig
from mlomae.multilevel.step import OuterStep
from mlomae.pretraining.optim import build_optimizers, deferred_rate, parameter_groups, rates
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import run_pretraining


def factor(t: int, iterations: int, warmup: int, floor: float, decay: str = "cosine") -> float:
    """lr of iteration t over the peak: (t + 1)/(w + 1), then a fall that reaches the floor at the last iteration."""
    if t <= warmup and warmup:
        return (t + 1) / (warmup + 1)
    progress = (t - warmup) / max(1, iterations - 1 - warmup)
    left = 1 - progress if decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return floor + (1 - floor) * left


@pytest.mark.parametrize(
    ("iterations", "warmup", "steps"),
    [(10, 0.0, 0), (20, 0.05, 1), (10, 0.2, 2), (40, 0.1, 4), (10, 1.0, 9), (2, 0.5, 1), (1, 0.05, 0)],
)
@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_rates_warm_up_then_fall_to_the_floor(
    iterations: int, warmup: float, steps: int, floor: float, decay: str
) -> None:
    settings = OptimConfig(lr=2e-3, warmup=warmup, min_lr=2e-3 * floor)
    expected = [2e-3 * factor(t, iterations, steps, floor, decay) for t in range(iterations)]
    assert rates(settings, iterations, decay=decay) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def mmengine_rates(settings: OptimConfig, iterations: int, begin: int, decay: str, peak: float | None) -> list[float]:
    """The same schedule by MMEngine's schedulers, which version 0.1 trained with."""
    length = iterations - begin
    warmup = min(round(settings.warmup * length), length - 1)
    falling = max(1, length - warmup - 1)
    start = {"by_epoch": False, "begin": begin + warmup}
    stages: list[dict[str, Any]] = []
    if warmup:
        stages.append({"type": "LinearLR", "start_factor": 1.0 / (warmup + 1), "end": begin + warmup + 1})
        stages[0] |= {"by_epoch": False, "begin": begin}
    if decay == "steps":
        milestones = [begin + round(length * share) for share in (8 / 9, 26 / 27)]
        stages.append({"type": "MultiStepLR", "by_epoch": False, "milestones": milestones, "gamma": 0.1})
    elif decay == "linear":
        factors = {"start_factor": 1.0, "end_factor": settings.min_lr / settings.lr}
        stages.append({"type": "LinearLR", **start, **factors, "end": begin + warmup + 1 + falling})
    else:
        floor = {"eta_min": settings.min_lr} if peak is None else {"eta_min_ratio": settings.min_lr / settings.lr}
        stages.append({"type": "CosineAnnealingLR", **start, **floor, "T_max": falling, "end": iterations})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.lr if peak is None else peak)
    built = [PARAM_SCHEDULERS.build({**stage, "optimizer": optimizer}) for stage in stages]
    found = []
    for _ in range(iterations):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in built:
            scheduler.step()
    return found


SHARES = st.one_of(st.sampled_from([0.0, 0.05, 1.0]), st.floats(0.0, 1.0))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 300), SHARES, SHARES, SHARES, st.floats(1e-6, 1.0), st.sampled_from(["cosine", "linear", "steps"])
)
def test_rates_are_those_of_mmengines_schedulers_to_the_bit(
    iterations: int, warmup: float, floor: float, share: float, lr: float, decay: str
) -> None:
    schedule = OptimConfig(lr=lr, warmup=warmup, min_lr=lr * floor)
    for begin, peak in ((int(share * (iterations - 1)), None), (0, lr * max(share, 1e-3))):
        expected = mmengine_rates(schedule, iterations, begin, decay, peak)
        assert rates(schedule, iterations, begin, decay, peak) == expected


def test_the_schedule_of_a_level_that_starts_late_is_a_whole_one() -> None:
    schedule = OptimConfig(lr=2e-3, warmup=0.2, min_lr=1e-4)
    assert rates(schedule, 150, 50)[50:] == rates(schedule, 100)


@pytest.mark.parametrize("start", [0, 1, 7, 19])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_a_start_found_while_training_gives_the_same_schedule_after_it(start: int, warmup: float) -> None:
    """0 before it; then the rates of `rates` for the iterations that remain."""
    schedule = OptimConfig(lr=2e-3, warmup=warmup, min_lr=1e-4)
    unknown = [deferred_rate(schedule, t, -1, 20) for t in range(start)]
    found = [deferred_rate(schedule, t, start, 20) for t in range(20)]
    assert unknown == found[:start] == [0.0] * start
    assert found[start:] == pytest.approx(rates(schedule, 20 - start), rel=1e-12, abs=1e-15)
    if min(round(warmup * (20 - start)), 19 - start) < 19 - start:
        assert found[-1] == 1e-4


def test_each_level_of_a_run_follows_its_own_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, list[float]] = {"theta": [], "omega": [], "phi": []}
    apply = OuterStep._apply

    def record(self: OuterStep, level: str, params: dict, g: dict) -> None:
        used[level].append(self.optimizers[level].param_groups[0]["lr"])
        apply(self, level, params, g)

    monkeypatch.setattr(OuterStep, "_apply", record)
    optim = {
        "theta": {"lr": 1e-3, "warmup": 0.2, "min_lr": 1e-5},
        "omega": {"lr": 4e-3, "warmup": 0.0},
        "phi": {"lr": 5e-4, "warmup": 0.5, "min_lr": 5e-5},
    }
    run_pretraining(tiny.config(name="schedule", data__eval=None, optim=optim), tmp_path)
    theta = [1e-3 * factor(t, 10, 2, 0.01) for t in range(10)]
    assert used["theta"] == pytest.approx([rate for rate in theta for _ in range(2)], rel=1e-9)  # K = 2
    assert used["omega"] == pytest.approx([4e-3 * factor(t, 10, 0, 0.0) for t in range(10)], rel=1e-9, abs=1e-12)
    assert used["phi"] == pytest.approx([5e-4 * factor(t, 10, 5, 0.1) for t in range(10)], rel=1e-9)
    assert [used[level][-1] for level in used] == pytest.approx([1e-5, 0.0, 5e-5], abs=1e-12)


@pytest.fixture(params=["token", "mlp", "transformer"])
def model(request: pytest.FixtureRequest) -> Pretrainer:
    return Pretrainer(tiny.config(mask__arch=request.param), tiny.CLASSES)


def test_every_trainable_parameter_is_in_exactly_one_group_of_its_level(model: Pretrainer) -> None:
    optimizers = build_optimizers(model.level_parameters(), tiny.config())
    owner: dict[int, list[str]] = {}
    for level, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            for p in group["params"]:
                owner.setdefault(id(p), []).append(level)
    prefixes = {"mae": "theta", "feedback": "omega", "mask": "phi"}
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {n: owner.get(id(p)) for n, p in trainable.items()} == {n: [prefixes[n.split(".")[0]]] for n in trainable}
    assert len(owner) == len(trainable)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        "mae.encoder.pos_embed",
        "mae.decoder.pos_embed",
    }


def test_only_matrices_decay(model: Pretrainer) -> None:
    decay = {"theta": 0.05, "omega": 0.01, "phi": 0.02}
    optim = {level: {"weight_decay": value, "lr": value / 10} for level, value in decay.items()}
    optimizers = build_optimizers(model.level_parameters(), tiny.config(optim=optim))
    names = {id(p): n for n, p in model.named_parameters()}
    for level, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            assert group["lr"] == decay[level] / 10
            for p in group["params"]:
                name = names[id(p)]
                matrix = name.endswith("weight") and "norm" not in name and p.ndim > 1
                assert group["weight_decay"] == (decay[level] if matrix else 0.0), name


def test_tokens_biases_and_norms_are_named_in_the_group_without_decay() -> None:
    model = Pretrainer(tiny.config(), tiny.CLASSES)
    theta = model.level_parameters()["theta"]
    decayed, plain = parameter_groups(theta, 0.05)
    assert decayed["weight_decay"] == 0.05
    assert plain["weight_decay"] == 0.0
    without = {n for n, p in theta.items() if any(p is q for q in plain["params"])}
    assert {"mae.encoder.cls_token", "mae.decoder.mask_token", "mae.encoder.norm.weight"} <= without
    assert "mae.encoder.patch_embed.proj.weight" not in without


def test_random_masks_leave_two_levels_without_an_optimizer() -> None:
    model = Pretrainer(tiny.config(**tiny.RANDOM), tiny.CLASSES)
    assert list(build_optimizers(model.level_parameters(), tiny.config(**tiny.RANDOM))) == ["theta"]
