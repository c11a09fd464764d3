"""Agreement of predicted and real effects, and the figure."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from mlomae.diagnostics.horizon.effects import Measured
from mlomae.diagnostics.horizon.report import (
    agreement,
    agreements,
    effect,
    horizon_figure,
    signed_ranks,
    table,
)
from mlomae.diagnostics.pictures import save_figure

RNG = np.random.default_rng(0)
P, D = RNG.normal(size=8), RNG.normal(size=8)


def test_linear_and_rank_are_the_usual_ones_with_mirrors() -> None:
    found = agreement(P.tolist(), D.tolist())
    p, d = np.concatenate([P, -P]), np.concatenate([D, -D])
    assert found["linear"] == pytest.approx(np.corrcoef(p, d)[0, 1])
    assert found["rank"] == pytest.approx(spearmanr(p, d).statistic)
    assert found["same_sign"] == int((np.sign(P) == np.sign(D)).sum())


def test_ties_and_zeros_keep_their_mean_rank() -> None:
    x = np.array([0.0, 1.0, -1.0, 2.0, 0.0])
    y = np.array([3.0, 1.0, 2.0, 5.0, -4.0])
    expected = spearmanr(np.concatenate([x, -x]), np.concatenate([y, -y])).statistic
    assert agreement(x.tolist(), y.tolist())["rank"] == pytest.approx(expected)
    assert signed_ranks(x).tolist() == [0.0, 3.0, -3.0, 4.5, 0.0]


def test_drawing_the_mirror_of_a_policy_changes_nothing() -> None:
    flip = np.where(np.arange(8) % 3 == 0, -1.0, 1.0)
    assert agreement((flip * P).tolist(), (flip * D).tolist()) == pytest.approx(agreement(P.tolist(), D.tolist()))


def test_chance_is_the_spread_of_random_signs() -> None:
    chance = agreement(P.tolist(), D.tolist())["chance"]
    assert chance is not None
    draws = np.abs(RNG.choice([-1.0, 1.0], size=(20000, 8)) @ (P * D)) / np.linalg.norm(P) / np.linalg.norm(D)
    assert (draws <= chance + 1e-12).mean() == pytest.approx(0.95, abs=0.02)
    many = RNG.normal(size=(2, 40))
    assert agreement(*many.tolist())["chance"] == pytest.approx(1.96 / 40**0.5, rel=0.25)


def test_two_policies_have_no_correlation_and_no_effect_has_none() -> None:
    assert agreement([1.0, 2.0], [1.0, 2.0]) == {"linear": None, "rank": None, "chance": None, "same_sign": 2}
    assert agreement([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])["linear"] is None


def test_effects_are_differences_per_unit_of_strength() -> None:
    pairs = [
        ([Measured(1.5, 50.0)], [Measured(1.0, 40.0)]),
        ([Measured(1.3, 50.0)], [Measured(1.0, 50.0)]),
    ]
    (row,) = effect(pairs, [1], 0.25)
    assert row["loss"]["mean"] == pytest.approx(0.8)
    assert row["loss"]["se"] == pytest.approx(0.2)
    assert row["accuracy"]["mean"] == pytest.approx(10.0)
    assert (row["loss_up"], row["accuracy_down"]) == (pytest.approx(1.4), 45.0)
    assert effect(pairs[:1], [1], 0.25)[0]["loss"]["se"] is None


def result(policies: int = 8, horizons: tuple[int, ...] = (1, 5, 20, 50, 100, 200)) -> dict[str, Any]:
    names = ["object", "error", "contrast", *(f"random_{i + 1}" for i in range(8))][:policies]
    pairs = {n: [([Measured(1 + d, 40.0)] * len(horizons), [Measured(1.0, 39.0)] * len(horizons))] for n, d in
             zip(names, 1e-3 * np.tile(D, 2), strict=False)}  # fmt: skip
    rows = [
        {
            "name": name,
            "predicted": {"mean": float(p), "se": 0.1},
            "predicted_adam": {"mean": float(p), "se": 0.1},
            "real": effect(pairs[name], horizons, 0.5),
        }
        for name, p in zip(names, np.tile(P, 2), strict=False)
    ]
    return {
        "name": "a_run",
        "iteration": 7,
        "feedback": "nca",
        "horizons": list(horizons),
        "strength": 0.5,
        "lr": 1e-3,
        "repeats": 1,
        "start": {"loss": 1.0, "accuracy": 40.0},
        "policies": rows,
        "agreement": agreements(rows, horizons),
    }


def test_the_table_names_every_policy_and_horizon() -> None:
    text = table(result())
    for word in ("object", "random_5", "real at 200", "rank correlation", "same sign", "of 8", "± 1.0e-01"):
        assert word in text
    assert len({len(line) for line in text.splitlines()[2:3]}) == 1
    assert "linear correlation" in table(result(policies=2)), "and a dash where there are too few"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("policies", "horizons"), [(8, (1, 5, 20, 50, 60)), (1, (1,)), (2, (1, 5)), (11, (1, 200))])
def test_the_figure_draws_without_warnings(policies: int, horizons: tuple[int, ...], tmp_path: Path) -> None:
    save_figure(horizon_figure(result(policies, horizons)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width >= 420 * min(3, 1 + len(horizons))
        assert len(picture.convert("RGB").getcolors(1 << 22)) > 50


@pytest.mark.filterwarnings("error")
def test_no_effect_at_all_is_drawn_too(tmp_path: Path) -> None:
    values = result()
    for policy in values["policies"]:
        for row in policy["real"]:
            row["loss"]["mean"] = 0.0
    values["agreement"] = agreements(values["policies"], values["horizons"])
    save_figure(horizon_figure(values), tmp_path / "a.png")
    assert "linear correlation" in table(values)


def test_stars_are_filled_where_the_sign_is_as_predicted() -> None:
    values = copy.deepcopy(result(1, (1, 5)))
    values["policies"][0]["predicted"]["mean"] = -1.0
    values["policies"][0]["real"][0]["loss"]["mean"] = -2.0
    values["policies"][0]["real"][1]["loss"]["mean"] = +2.0
    stars = [line for line in horizon_figure(values).axes[-1].lines if line.get_marker() == "*"]
    assert [line.get_markerfacecolor() != "white" for line in stars] == [True, False]
