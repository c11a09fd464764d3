"""Random masks before the mask learns, and the running average of v: what they do, and that a resume keeps both."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch
from checks import response_vector

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint, save_atomically
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.multilevel import hypergradient, mixed_product
from mlomae.pretraining.losses import level_problem
from mlomae.pretraining.pretrainer import RunningAverage
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep

LAST = 6


def config(**changes: object):
    return tiny.config(data__eval=None, train__outer_iterations=LAST, **changes)


def state(work: Path, iteration: int) -> dict:
    return load_checkpoint(checkpoint_path(work, iteration))


@pytest.mark.parametrize("feedback", [{"type": "linear"}, {"type": "nca"}], ids=lambda f: f["type"])
def test_warm_up_trains_all_but_the_mask_and_resumes_with_the_same_bits(feedback: dict, tmp_path: Path) -> None:
    cfg = config(feedback=feedback, levels__warmup=3, levels__v_momentum=0.5)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_pretraining(cfg, whole)
    start, _ = tiny.trainer(cfg)
    early, late = state(whole, 2), state(whole, LAST)
    assert tiny.differences(early["modules"]["mask"], dict(start.mask.state_dict())) == []
    assert tiny.differences(late["modules"]["mask"], dict(start.mask.state_dict()))
    assert tiny.differences(early["modules"]["mae"], dict(start.mae.state_dict()))
    assert int(early["modules"]["average"]["steps"]) == 0
    assert int(late["modules"]["average"]["steps"]) == LAST - 3
    for iteration in (2, 4):  # before the warm-up is over, and after
        folder = cut / str(iteration)
        (folder / "checkpoints").mkdir(parents=True)
        shutil.copy(checkpoint_path(whole, iteration), folder / "checkpoints")
        run_pretraining(cfg, folder, resume=True)
        assert tiny.state_differences(state(folder, LAST), late) == []


def test_warm_up_is_random_masking_bit_for_bit() -> None:
    """With masks and weights of the random strategy, θ moves as in plain MAE."""
    moved = []
    for changes in ({"levels__warmup": 3}, tiny.RANDOM):
        model, data = tiny.trainer(config(**changes))
        model.mae.load_state_dict(tiny.trainer(config())[0].mae.state_dict())
        levels = {k: p for k, p in model.level_parameters().items() if p}
        step = PretrainStep(model, {k: torch.optim.SGD(p.values(), 0.1) for k, p in levels.items()})
        losses = step(data.batches[0], 2)
        assert "loss_upper" not in losses
        moved.append(dict(model.mae.state_dict()))
    assert tiny.differences(*moved) == []


def test_the_mean_in_the_log_counts_the_iterations_that_had_the_loss(tmp_path: Path) -> None:
    """Warm-up ends inside an interval: the one value is the mean, not a share of it."""
    runs = []
    for interval in (1, LAST):
        cfg = config(levels__warmup=LAST - 1, train__log_interval=interval, train__checkpoint_interval=9)
        runs.append(run_pretraining(cfg, tmp_path / str(interval)))
    every, interval = (run["metrics"]["loss_upper"] for run in runs)
    assert every == pytest.approx(interval, rel=1e-6)


def test_average_is_the_formula_and_survives_its_state_dict() -> None:
    vs = [{"a.b": torch.randn(3, dtype=torch.float64)} for _ in range(5)]
    average = RunningAverage(vs[0], 0.7)
    for t, v in enumerate(vs, 1):
        found = average(v)["a.b"]
        weights = [0.3 * 0.7 ** (t - s) for s in range(1, t + 1)]
        expected = sum(w * u["a.b"] for w, u in zip(weights, vs, strict=False)) / sum(weights)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        again = RunningAverage(vs[0], 0.7)
        again.load_state_dict(average.state_dict())
        average = again


@pytest.mark.parametrize("solver", ["one_step", "neumann", "cg"])
def test_the_average_takes_the_place_of_v(solver: str) -> None:
    model, data = tiny.trainer(config(feedback={"type": "nca"}))
    model.double()
    problem, levels, batches = level_problem(model), model.level_parameters(), []
    for item in (data.batches[0], data.batches[1]):
        for batch in (item["head"], item["upper"], item["lower"][0]):
            batch["image"] = batch["image"].double()
        batches.append(item)
    with torch.no_grad():
        lower = problem.fix(levels["theta"], levels["phi"], batches[1]["lower"][0])
    average, parts = RunningAverage(levels["theta"], 0.9), []
    for item in batches:
        given = {"lower_batch": lower, "head_batch": item["head"], "upper_batch": item["upper"]}
        found = hypergradient(problem, levels["theta"], {}, levels["phi"], solver=solver, smooth=average, **given)
        parts.append(response_vector(problem, levels["theta"], {}, item["head"], item["upper"]))
    if solver == "one_step":
        v = {k: (0.09 * t + 0.1 * parts[1][k]) / 0.19 for k, t in parts[0].items()}
        expected = mixed_product(problem, levels["theta"], levels["phi"], v, lower)
        for name, t in expected.items():
            torch.testing.assert_close(found[name], t, rtol=1e-8, atol=1e-12)
    assert int(average.steps) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels__warmup": -1}, "levels.warmup"),
        ({"levels__warmup": LAST}, "the mask never learns"),
        ({"levels__v_momentum": 1.0}, r"levels.v_momentum' must be inside \[0, 1\)"),
        ({"levels__v_momentum": -0.1}, "levels.v_momentum"),
        ({"levels__v_momentum": 0.9, "levels__solver": "finite_difference"}, "no response vector to average"),
        ({"levels__v_momentum": 0.9, "levels__solver": "unrolled"}, "no response vector to average"),
    ],
)
def test_bad_values_are_one_line_errors(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        tiny.trainer(config(**changes))
    assert "\n" not in str(error.value)


def test_a_checkpoint_older_than_these_keys_resumes(tmp_path: Path) -> None:
    cfg = config()
    run_pretraining(cfg, tmp_path / "whole")
    old = state(tmp_path / "whole", 2)
    assert "average" not in old["modules"]
    for key in ("warmup", "warmup_margin", "upper_every", "v_momentum"):
        del old["config"]["levels"][key]
    del old["watch"], old["meta"]["numerics"]
    save_atomically(old, checkpoint_path(tmp_path / "cut", 2))
    run_pretraining(cfg, tmp_path / "cut", resume=True)
    assert tiny.state_differences(state(tmp_path / "cut", LAST), state(tmp_path / "whole", LAST)) == []
    save_atomically(old, checkpoint_path(tmp_path / "other", 2))
    with pytest.raises(CheckpointError, match=r"levels.warmup \(0 -> 1\)"):
        run_pretraining(config(levels__warmup=1), tmp_path / "other", resume=True)
