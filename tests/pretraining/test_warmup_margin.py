"""Random masks until the feedback beats chance: when they end, what a resume keeps, and what is said if they do not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError, DataError
from mlomae.data import OuterBatches, Stream, Textures
from mlomae.data.augment import Plain
from mlomae.pretraining import feedback_gate
from mlomae.pretraining.feedback_gate import Chance, FeedbackGate, FeedbackProbe, chance_of, judge
from mlomae.pretraining.losses import features
from mlomae.pretraining.run import build_data, images_seen, run_pretraining

LAST = 20
EIGHTH = Chance(1 / 8, 10**6)
Planted = Callable[[Callable[[int], float]], None]


def config(**changes: object):
    changes = {"levels__warmup_margin": 5.0, "train__outer_iterations": LAST, **changes}
    return tiny.config(data__eval=None, train__picture_interval=99, **changes)


def state(work: Path, iteration: int) -> dict[str, Any]:
    return load_checkpoint(checkpoint_path(work, iteration))


def log_of(work: Path) -> str:
    return (work / "train.log").read_text()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Probes after every iteration, with an accuracy that is a given function of the iteration, of 1000 images."""
    monkeypatch.setattr(feedback_gate, "PROBE_INTERVAL", 1)

    def plant(share: Callable[[int], float]) -> None:
        upper = build_data(config()).batches.upper
        order = [tuple(upper.batch(t * 8, 8)["key"].tolist()) for t in range(LAST)]
        share_at = lambda data: share(order.index(tuple(data["upper"]["key"].tolist())))  # noqa: E731
        monkeypatch.setattr(feedback_gate, "judge", lambda model, data: (round(1000 * share_at(data)), 1000))

    return plant


# --- the criterion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "margin", "passes"),
    [(375, 5.0, True), (176, 5.0, True), (174, 5.0, False), (167, 0.1, True), (166, 0.1, False), (125, 0.1, False)],
)
def test_the_margin_and_four_standard_errors_must_both_be_exceeded(right: int, margin: float, passes: bool) -> None:
    """Of 1000 images at chance 1/8 the standard error is 1.046 %, so that 4 are 4.18 points."""
    gate = FeedbackGate(-1)
    gate.add(right, 1000)
    assert gate.beats(EIGHTH, margin) == passes


def test_a_small_batch_does_not_pass_by_luck_but_a_row_of_them_does() -> None:
    gate, passed = FeedbackGate(-1), []
    for _ in range(10):
        gate.add(2, 8)  # twice chance
        passed.append(gate.beats(EIGHTH, 5.0))
    assert not any(passed)
    gate = FeedbackGate(-1)
    for _ in range(10):
        gate.add(20, 80)
    assert gate.beats(EIGHTH, 5.0)


def test_the_window_forgets_and_images_judged_twice_are_no_new_evidence() -> None:
    gate = FeedbackGate(-1)
    for right in [1000] * 10 + [125] * 10:
        gate.add(right, 1000)
    assert gate.recent() == (0.125, 10_000)
    assert Chance(0.25, 30).error(10_000) == Chance(0.25, 10**6).error(30)
    assert not FeedbackGate(-1).beats(EIGHTH, 5.0)


def test_at_chance_the_warm_up_seldom_ends_by_luck() -> None:
    """500 probes of 64 images, 100 times; the rate in the docstring is 0.02."""
    generator, ended = np.random.default_rng(0), 0
    for _ in range(100):
        gate, passed = FeedbackGate(-1), False
        for right in generator.binomial(64, 1 / 8, size=500).tolist():
            gate.add(right, 64)
            passed |= gate.beats(EIGHTH, 0.5)
        ended += passed
    assert ended <= 6


def test_chance_is_the_most_frequent_class_of_the_upper_split() -> None:
    source = Textures(count=40, size=16, classes=4)
    source.labels = np.array([0] * 25 + [1] * 5 + [2] * 6 + [3] * 4)
    batches = OuterBatches(
        Stream(source, None, Plain(16), 0, "lower"),
        Stream(source, range(20), Plain(16), 0, "head"),
        Stream(source, range(20, 40), Plain(16), 0, "upper"),
        batch_size=4,
    )
    assert chance_of(batches, 4) == Chance(6 / 20, 20)
    with pytest.raises(DataError, match=r"labels of at least two classes, textures train .+ has 1; set") as e:
        chance_of(batches, 1)
    assert "\n" not in str(e.value)
    source.labels[30:] = -1  # unlabelled images
    batches.upper = Stream(source, range(20, 40), Plain(16), 0, "upper")
    with pytest.raises(DataError, match=r"10 images of .+ have no label inside 0\.\.3; set data\.feedback") as e:
        chance_of(batches, 4)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", ["linear", "nca"])
def test_a_probe_is_the_accuracy_on_the_upper_batch(kind: str) -> None:
    model, data = tiny.trainer(config(feedback={"type": kind}))
    upper, head = data.batches[3]["upper"], data.batches[3]["head"]
    with torch.no_grad():
        scores = model.feedback.predict(features(model, upper), features(model, head), head)
    right = sum(int(row.argmax()) == int(label) for row, label in zip(scores, upper["label"], strict=True))
    assert judge(model, data.batches[3]) == (right, 8)


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [0, 6])
def test_a_perfect_feedback_ends_the_warm_up_at_the_first_possible_probe(
    fixed: int, planted: Planted, tmp_path: Path
) -> None:
    planted(lambda t: 1.0)
    record = run_pretraining(config(name=f"perfect{fixed}", levels__warmup=fixed), tmp_path)
    begin = max(1, fixed)
    assert record["metrics"]["phi_started"] == begin
    assert record["images_seen"]["upper"] == 8 * LAST
    start, _ = tiny.trainer(config())
    for iteration in range(2, LAST + 1, 2):
        moved = tiny.differences(state(tmp_path, iteration)["modules"]["mask"], dict(start.mask.state_dict()))
        assert bool(moved) == (iteration > begin), iteration
    assert state(tmp_path, LAST)["optimizers"]["phi"]["state"][0]["step"] == LAST - begin
    log = log_of(tmp_path)
    assert f"warm-up over after {begin} outer iterations: 'linear' is right on 100.0 %" in log
    assert "stayed at chance" not in log
    assert "NEVER LEARNED" not in log


def test_without_planting_the_first_probe_is_after_ten_iterations(tmp_path: Path) -> None:
    record = run_pretraining(config(name="ten"), tmp_path)
    assert [len(state(tmp_path, i)["watch"]["window"]) for i in (8, 10, 18, 20)] == [0, 1, 1, 2]
    assert record["metrics"]["phi_started"] == -1, "two probes of eight images prove nothing"


def test_a_feedback_at_chance_never_ends_it_and_the_warning_names_the_remedy(planted: Planted, tmp_path: Path) -> None:
    planted(lambda t: 0.25)
    cfg = config(name="chance", feedback={"type": "linear", "pooling": "cls"})
    record = run_pretraining(cfg, tmp_path)
    assert record["metrics"]["phi_started"] == -1
    assert "loss_upper" not in record["metrics"]
    assert record["images_seen"] == {"lower": 16 * LAST, "head": 8 * LAST, "upper": 8 * LAST}  # probes read them
    start, _ = tiny.trainer(cfg)
    assert tiny.differences(state(tmp_path, LAST)["modules"]["mask"], dict(start.mask.state_dict())) == []
    lines = log_of(tmp_path).splitlines()
    (never,) = [line for line in lines if "THE MASK NEVER LEARNED" in line]
    epochs = [line for line in lines if "stayed at chance for the epoch" in line]
    assert len(epochs) == 2, "one line an epoch: a pass of the 77 head images is 10 iterations"
    for line in (never, *epochs):
        assert "'linear' is right on 25.0 % of 20 upper images" in line
        for remedy in ("levels.head_steps", "data.feedback_batch_size", "pooling='avg'", "type='nca'", "levels.warmup"):
            assert remedy in line
    assert "outer iteration 10," in epochs[0]
    assert "outer iteration 20," in epochs[1]


def test_a_feedback_that_fails_after_the_warm_up_is_a_warning_too(planted: Planted, tmp_path: Path) -> None:
    planted(lambda t: 1.0 if t < 10 else 0.2)
    cfg = config(name="fails", feedback={"type": "nca"}, levels__warmup_margin=0.0, levels__warmup=2)
    run_pretraining(cfg, tmp_path)
    (line,) = [line for line in log_of(tmp_path).splitlines() if "stayed at chance" in line]
    assert "outer iteration 20," in line
    assert not any(word in line for word in ("head_steps", "pooling", "type=")), "no remedy that is in place already"


@pytest.mark.parametrize("kind", ["linear", "nca"])
def test_a_resume_before_and_after_the_end_of_the_warm_up_has_the_same_bits(
    kind: str, planted: Planted, tmp_path: Path
) -> None:
    planted(lambda t: float(t >= 4))  # the window of 10 fills up with right answers
    optim = {"phi": {"warmup": 0.3, "min_lr": 1e-4}, "theta": {"clip_grad": 1.0}}
    cfg = config(name=f"whole{kind}", feedback={"type": kind}, optim=optim, levels__v_momentum=0.5)
    whole = tmp_path / "whole"
    record = run_pretraining(cfg, whole)
    begin = int(record["metrics"]["phi_started"])
    assert 6 <= begin <= 14
    late = state(whole, LAST)
    for iteration in (4, begin - begin % 2, begin + begin % 2):
        folder = tmp_path / str(iteration)
        (folder / "checkpoints").mkdir(parents=True)
        shutil.copy(checkpoint_path(whole, iteration), folder / "checkpoints")
        again = run_pretraining(cfg, folder, resume=True)
        assert tiny.state_differences(state(folder, LAST), late) == [], iteration
        assert again["metrics"] == record["metrics"]
        assert again["images_seen"] == record["images_seen"]
    altered = state(whole, 4)
    altered["watch"]["window"] = [[1000, 1000]] * 4
    (tmp_path / "altered" / "checkpoints").mkdir(parents=True)
    torch.save(altered, checkpoint_path(tmp_path / "altered", 4))
    run_pretraining(cfg, tmp_path / "altered", resume=True)
    assert tiny.state_differences(state(tmp_path / "altered", LAST), late), "too blunt"


def test_a_run_that_starts_late_moves_theta_as_one_with_a_fixed_warm_up_of_that_length(
    planted: Planted, tmp_path: Path
) -> None:
    planted(lambda t: float(t >= 4))
    record = run_pretraining(config(name="found"), tmp_path / "found")
    begin = int(record["metrics"]["phi_started"])
    fixed = config(name="fixed", levels__warmup_margin=0.0, levels__warmup=begin)
    run_pretraining(fixed, tmp_path / "fixed")
    found, known = (state(tmp_path / name, LAST)["modules"] for name in ("found", "fixed"))
    for module in ("mae", "mask"):  # φ's rates agree to rounding: closed form against MMEngine's recursion
        for name, t in known[module].items():
            torch.testing.assert_close(found[module][name], t, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("levels", "kind", "begin", "head", "upper"),
    [
        ({}, "linear", 0, 100, 100),
        ({"warmup": 40}, "linear", 40, 100, 60 + 4),  # 4 probes before the start
        ({"warmup": 40}, "nca", 40, 64, 64),
        ({"upper_every": 2}, "linear", 0, 100, 60),  # 0, 2, ... and the probes after 9, 19, ...
        ({"upper_every": 3, "warmup": 10}, "nca", 10, 37, 37),  # 10, 13, ..., 97, and 7 of the probes
        ({"warmup_margin": 1.0}, "nca", -1, 10, 10),
    ],
)
def test_images_seen_counts_the_batches_that_are_read(
    levels: dict, kind: str, begin: int, head: int, upper: int
) -> None:
    cfg = tiny.config(levels=levels, feedback={"type": kind}, train__outer_iterations=100)
    assert images_seen(cfg, begin) == {"lower": 100 * 16, "head": 8 * head, "upper": 8 * upper}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels__warmup_margin": -1.0}, r"levels.warmup_margin' must be inside \[0, 100\); got -1"),
        ({"levels__warmup_margin": 100}, r"levels.warmup_margin.+got 100"),
        ({"levels__warmup_margin": float("nan")}, "levels.warmup_margin.+got nan"),
        ({"levels__warmup_margin": "5"}, "levels.warmup_margin' must be float"),
        ({"levels__upper_every": 0}, "levels.upper_every' must be at least 1"),
        ({"levels__upper_every": 1.5}, "levels.upper_every' must be int"),
        ({"levels__upper_evry": 2}, "did you mean 'upper_every'"),
    ],
)
def test_bad_values_are_one_line_errors(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        tiny.config(**changes)
    assert "\n" not in str(error.value)


def test_a_margin_above_what_is_left_over_chance_is_refused() -> None:
    cfg = config(levels__warmup_margin=90.0)
    with pytest.raises(ConfigError, match=r"levels\.warmup_margin 90: a constant .+ lower the margin") as e:
        FeedbackProbe(tiny.trainer(cfg)[0], FeedbackGate(-1), build_data(cfg).batches)
    assert "\n" not in str(e.value)
