"""The forest plot and the map: their points and intervals are those of the tables, their colours what these say."""

from typing import Any

import numpy as np
import pytest
from figure_samples import on_scenes, scene_run

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures import forest, shares
from benchmarks.analysis.figures.runs import NothingToDrawError
from benchmarks.analysis.figures.style import BLACK, look
from benchmarks.analysis.statistics import seed_interval


def evidence(found: list[dict[str, Any]]) -> Evidence:
    return Evidence({f"{i}.json": record for i, record in enumerate(found)})


def test_the_map_draws_the_parts_of_every_share() -> None:
    with look():
        (drawn,) = shares.draw(evidence([*on_scenes(0.25, 6.0), *on_scenes(0.5, 1.0)]))
        panel = drawn.figure.axes[0]
    lines = {
        line.get_color(): line for line in panel.lines if len(line.get_xdata()) == 2 and line.get_marker() != "None"
    }
    image = lines[shares.STYLES["image"].colour]
    assert np.allclose(image.get_xdata(), [0.25, 0.5], atol=0.02)
    assert np.allclose(image.get_ydata(), [6.0, 1.0], atol=0.2)
    assert np.allclose(lines[shares.STYLES["position"].colour].get_ydata(), [2.0, 2.0], atol=0.2)
    assert np.allclose(lines[BLACK].get_ydata(), [3.0, 0.5], atol=0.2), "the learned mask beyond position"
    assert len(drawn.sources) == 30
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["25%", "50%"]


def test_without_controls_there_is_no_map() -> None:
    alone = [r for r in on_scenes(0.5, 1.0) if r["method"] in ("MAE", "oracle")]
    with pytest.raises(NothingToDrawError, match="map_50"):
        shares.draw(evidence(alone))
    elsewhere = on_scenes(0.5, 1.0)
    for r in elsewhere:
        r["config"]["data"]["train"]["type"] = "textures"
    with pytest.raises(NothingToDrawError):
        shares.draw(evidence(elsewhere))


def test_the_forest_has_the_differences_and_their_verdicts() -> None:
    found = [scene_run("MAE", s, 40.0 + s) for s in range(3)]
    found += [scene_run("better", s, 50.0 + s + 0.1 * (s % 2)) for s in range(3)]
    found += [scene_run("equal", s, 40.0 + s + 0.05 * (-1) ** s) for s in range(3)]
    wild = [41.0, 60.0, 30.0]
    found += [scene_run("not settled", s, value) for s, value in enumerate(wild)]
    with look():
        (drawn,) = forest.draw(evidence(found))
        panel = drawn.figure.axes[0]
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert names == ["better (3)", "not settled (3)", "equal (3)"], "from the largest difference to the smallest"
    points = {int(line.get_ydata()[0]): line for line in panel.lines if line.get_marker() == "o"}
    assert [points[y].get_color() for y in range(3)] == [forest.COLOURS["better"], BLACK, forest.COLOURS["equal"]]
    expected = seed_interval([value - 40.0 - s for s, value in enumerate(wild)])
    assert points[1].get_xdata()[0] == pytest.approx(expected.mean)
    bar = next(
        line for line in panel.lines if line.get_color() == forest.COLOURS["equal"] and len(line.get_xdata()) == 2
    )
    interval = seed_interval([0.05, -0.05, 0.05])
    assert list(bar.get_xdata()) == pytest.approx([interval.low, interval.high])
    arrows = [line.get_marker() for line in panel.lines if line.get_marker() in "<>" and line.get_color() == BLACK]
    assert sorted(arrows) == ["<", ">"], "an interval that goes on beyond both edges"


def test_two_seeds_are_not_drawn() -> None:
    found = [scene_run(method, s, 40.0 + s) for method in ("MAE", "other") for s in range(2)]
    with pytest.raises(NothingToDrawError, match="over 3 seeds"):
        forest.draw(evidence(found))
