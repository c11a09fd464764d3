"""Tuning runs: the best of so many draws, by enumeration; drawn by themselves, and in no table of results."""

import itertools
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from figure_samples import draws, inputs, scene_run

from benchmarks.analysis.comparable import is_tuning
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures import tuning
from benchmarks.analysis.figures.runs import NothingToDrawError
from benchmarks.analysis.figures.style import look
from benchmarks.analysis.tables.build import build_tables
from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import Planner
from mlomae.records import write_record

ROOT = Path(__file__).parents[4]
VALUES = [40.0, 44.0, 41.0, 45.0, 39.0, 44.0]


@pytest.mark.parametrize("budget", range(1, 7))
def test_the_best_of_a_budget_is_the_mean_over_all_choices(budget: int) -> None:
    choices = [max(chosen) for chosen in itertools.combinations(VALUES, budget)]
    assert tuning.expected_best(VALUES, budget) == pytest.approx(fmean(choices), abs=1e-12)


def test_a_line_for_each_method_with_draws() -> None:
    found = [*draws("MAE", VALUES), *draws("centre", [v + 5 for v in VALUES[:4]]), *draws("alone", [50.0])]
    evidence = Evidence({f"{i}.json": r for i, r in enumerate([*found, scene_run("MAE", 0, 90.0)])})
    with look():
        (drawn,) = tuning.draw(evidence)
        lines = {
            str(line.get_gid()): line for line in drawn.figure.axes[0].lines if line.get_gid() in ("MAE", "centre")
        }
    assert np.allclose(lines["MAE"].get_ydata(), [tuning.expected_best(VALUES, b) for b in range(1, 7)])
    assert lines["MAE"].get_ydata()[-1] == 45.0
    assert lines["centre"].get_xdata().tolist() == [1, 2, 3, 4]
    assert drawn.sources == [f"{i}.json" for i in range(10)]
    with pytest.raises(NothingToDrawError, match="tuning_map_50"):
        tuning.draw(inputs([scene_run("MAE, draw 1", 0, 40.0), scene_run("MAE, draw 2", 0, 41.0)]))


def test_draws_on_other_data_are_no_part_of_a_line() -> None:
    elsewhere = [r | {"dataset": "other"} for r in draws("MAE", [80.0, 82.0])]
    evidence = Evidence({f"{i}.json": r for i, r in enumerate([*elsewhere, *draws("MAE", VALUES)])})
    with look():
        (drawn,) = tuning.draw(evidence)
    assert drawn.sources == [f"{i}.json" for i in range(2, 8)]


def test_tuning_runs_are_no_results(tmp_path: Path) -> None:
    """Records in the folder of results: all tables but those of the real run are as without them."""
    pages = {}
    for name, more in {"without": [], "with": draws("MAE", VALUES)}.items():
        for i, record in enumerate([scene_run("MAE", 0, 40.0), *more]):
            write_record(record, tmp_path / name / "runs" / f"{i}.json")
        build_tables(tmp_path / name / "runs", tmp_path / name / "out")
        pages[name] = {path.name: path.read_bytes() for path in (tmp_path / name / "out").iterdir()}
    assert pages["without"] == pages["with"]
    assert all(is_tuning(r) for r in draws("MAE", VALUES))
    assert not is_tuning(scene_run("MAE", 0, 40.0))
    transfer = {"config": {"data": {"test": {"type": "on_scenes", "objects": {"type": "part"}}}}}
    assert is_tuning(transfer), "a transfer is judged on data.test"


def test_the_shipped_suite_reads_no_evaluation_image() -> None:
    """Neither objects nor photographs: every source is a part of a training set, and the two parts are disjoint."""
    jobs = Planner(load_suite(ROOT / "configs" / "suites" / "tuning_map_50.py")).jobs()
    assert len(jobs) == 24
    for job in jobs:
        for name, part in (("train", "train"), ("eval", "held_out")):
            source = getattr(job.config.data, name)
            for inner in (source["objects"], source["scenes"]):
                assert (inner["type"], inner["part"], inner["of"]["split"]) == ("part", part, "train")
        assert job.config.data.feedback is None
    rates = {job.config.method: job.config.optim["theta"].lr for job in jobs}
    for name in ("MAE", "centre", "MLO-MAE (nca, mask pooling)", "MAE (joint classification)"):
        own = [rates[f"{name}, draw {k}"] for k in range(1, 7)]
        assert own == [rates[f"MAE, draw {k}"] for k in range(1, 7)], "the same draws for every row"
