"""What is drawn is what the records say: data read back from the artists, against numbers by hand."""

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_samples import crowded_cost, curves, inputs, mask_values, ratios, run, write_masks
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures import bilevel, cost, loss_curves, mask_ratio, masks
from benchmarks.analysis.figures.cost import front
from benchmarks.analysis.figures.runs import at_one_ratio, sweeps
from benchmarks.analysis.figures.style import SMALLEST, look
from mlomae.common.errors import DataError
from mlomae.diagnostics.pictures import REMOVED


def drawn(module: Any, given_: Evidence) -> list[tuple[Figure, list[str]]]:
    with look():
        return [(d.figure, d.sources) for d in module.draw(given_)]


def lines(ax: Axes, gid: str) -> list[tuple[list[float], list[float]]]:
    found = [artist for artist in ax.findobj(Line2D) if artist.get_gid() == gid]
    return [(list(map(float, a.get_xdata())), list(map(float, a.get_ydata()))) for a in found]  # type: ignore[arg-type]


# --- cost -----------------------------------------------------------------------------------------------------------


def test_cost_shows_means_and_deviations_at_what_they_cost() -> None:
    records = [
        run("MAE", 0, 40.0, cpu_s=100),
        run("MAE", 1, 44.0, cpu_s=110),
        run("MLO-MAE", 0, 50.0, cpu_s=300),
        run("oracle, weight 5", 0, 90.0, cpu_s=100),
        {**run("MAE", 0, 1.0), "task": "speed", "metrics": {}},
    ]
    (knn, sources), (linear, _) = drawn(cost, inputs(records))
    assert sources == ["000.json", "001.json", "002.json", "003.json"]
    for figure, shift in ((knn, 0.0), (linear, 5.0)):
        (time,) = figure.axes
        assert lines(time, "MAE") == [([105.0], [42.0 + shift])]
        assert lines(time, "MLO-MAE") == [([300.0], [50.0 + shift])]
        bars = [
            (list(a.get_xdata()), list(a.get_ydata())) for a in time.lines + time.artists if len(a.get_xdata()) == 2
        ]  # type: ignore[arg-type]
        sd = statistics.stdev([40.0, 44.0])
        assert ([105.0, 105.0], pytest.approx([42 + shift - sd, 42 + shift + sd])) in bars
        assert ([105 - 50**0.5, 105 + 50**0.5], [42.0 + shift] * 2) in [(pytest.approx(x), y) for x, y in bars]
        assert lines(time, "front")[0][1][:2] == [42.0 + shift, 50.0 + shift], "the oracle is no part of it"
    hollow = [a for a in knn.axes[0].findobj(Line2D) if a.get_gid() == "oracle, weight 5"]
    assert hollow[0].get_markerfacecolor() == "white"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_else_reaches_at_the_same_cost_or_less(points: list[tuple[int, int]]) -> None:
    expected = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert set(front([(float(x), float(y)) for x, y in points])) == expected


def test_names_of_25_methods_do_not_lie_on_each_other_and_lead_to_their_points() -> None:
    for figure in (d.figure for d in crowded_cost()):
        (ax,) = figure.axes
        scale = figure.dpi / 72
        letters = SMALLEST * scale * 0.9
        names = sorted(ax.texts, key=lambda text: text.get_position()[1])
        assert len({text.get_text() for text in names}) == 25
        for one, other in itertools.pairwise(text.get_window_extent() for text in names):
            assert other.y0 + other.y1 - one.y0 - one.y1 >= 2 * letters
        rim = figure.bbox
        assert all(text.get_window_extent().x1 <= rim.x1 for text in names)
        heights = []
        for text in names:
            ((x,), (y,)) = lines(ax, text.get_text())[0]
            ends = [
                a for a in ax.findobj(Line2D) if len(a.get_xdata()) == 3 and a.get_ydata()[2] == text.get_position()[1]
            ]
            marker = ax.transData.transform((x, y)) / scale
            assert (ends[0].get_xdata()[0] - 3.5, ends[0].get_ydata()[0]) == pytest.approx(marker)
            heights.append(y)
        assert heights == sorted(heights), "in the order of accuracy"


# --- two levels against three ----------------------------------------------------------------------------------------


def test_bilevel_shows_seeds_means_intervals_and_paired_differences() -> None:
    values = {"MAE": [40.0, 42.0, 47.0], "BLO-MAE": [41.0, 45.0, 46.0], "MLO-MAE": [44.0, 46.0, 51.0]}
    records = [run(m, seed, v) for m, found in values.items() for seed, v in enumerate(found)]
    records += [run("MLO-MAE", 0, 99.0, images_seen={"lower": 1, "head": 0, "upper": 0}, config={"train": 1})]
    ((figure, sources),) = drawn(bilevel, inputs(records))
    assert sources == [f"{i:03d}.json" for i in range(9)]
    left, right = figure.axes[:2]
    assert [t.get_text() for t in left.get_yticklabels()] == list(values)
    assert [x for x, _ in lines(left, "seeds")] == list(values.values())
    assert [x for x, _ in lines(left, "mean")] == [[statistics.fmean(v)] for v in values.values()]
    for (x, _), found in zip(lines(left, "interval"), values.values(), strict=True):
        assert x == pytest.approx(stats.t.interval(0.95, 2, np.mean(found), stats.sem(found)))
    assert [x for x, _ in lines(right, "seeds")] == [[3.0, 1.0, 5.0], [1.0, 3.0, -1.0], [4.0, 4.0, 4.0]]
    words = [t.get_text() for t in right.texts]
    assert words[0].startswith("+3.0 [")
    assert words[2] == "+4.0", "seeds that agree to the last digit have no interval"
    assert np.isfinite(right.get_xlim()).all()


def test_intervals_of_two_seeds_do_not_set_the_scale_and_end_in_arrows() -> None:
    records = [run(m, seed, 48.0 + seed) for m in ("MAE", "BLO-MAE", "MLO-MAE") for seed in (0, 1)]
    ((figure, _),) = drawn(bilevel, inputs(records))
    left = figure.axes[0]
    low, high = left.get_xlim()
    assert high - low < 3
    assert all(x == [low, high] for x, _ in lines(left, "interval"))
    assert sum(a.get_marker() in "<>" for a in left.lines) == 6
    assert "an arrow" in figure.texts[1].get_text().replace("\n", " ")


def test_suffixes_are_compared_with_their_own() -> None:
    methods = ("BLO-MAE", "MLO-MAE", "BLO-MAE (nca)", "MLO-MAE (nca)", "MLO-MAE (ridge)", "BLO-MAE (linear)")
    found = bilevel.comparisons([run(m, 0) for m in methods])
    assert [[runs[0]["method"] for runs in c.runs.values()] for c in found] == [list(methods[:2]), list(methods[2:4])]
    assert [list(c.runs) for c in found] == [["BLO-MAE", "MLO-MAE"]] * 2
    assert [c.title.endswith("seen (nca)") for c in found] == [False, True]
    other = run("MLO-MAE", 0, dataset="textures")
    assert bilevel.comparisons([run("BLO-MAE", 0), other]) == []


# --- mask ratio -------------------------------------------------------------------------------------------------------


def test_mask_ratio_joins_runs_that_differ_in_nothing_else() -> None:
    records = [run("MAE", s, 40.0 + 10 * r + s, ratio=r) for r in (0.5, 0.75) for s in (0, 2)]
    records += [run("MAE, mask ratio 0.9", 0, 30.0, ratio=0.9)]
    records += [run("MAE", 0, 1.0, ratio=0.6, config={"train": {"outer_iterations": 9}}), run("MLO-MAE", 0, 2.0)]
    ((figure, sources),) = drawn(mask_ratio, inputs(records))
    assert sources == [f"{i:03d}.json" for i in range(5)]
    assert lines(figure.axes[0], "mean") == [([0.5, 0.75, 0.9], [46.0, 48.5, 30.0])]
    assert sorted(y for _, ys in lines(figure.axes[1], "seeds") for y in ys) == [35.0, 50.0, 52.0, 52.5, 54.5]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["MAE"]


def test_names_of_sweeps() -> None:
    for names, expected in (
        (["MAE", "MAE"], "MAE"),
        (["MAE", "MAE, ratio 0.5"], "MAE"),
        (["MAE (mask ratio 0.5)", "MAE (mask ratio 0.9)"], "MAE"),
        (["MLO-MAE (nca, mask pooling)", "MLO-MAE (nca, mask pooling), ratio 0.4"], "MLO-MAE (nca, mask pooling)"),
        (["MLO-MAE (nca), ratio 0.5", "MLO-MAE (nca), ratio 0.9"], "MLO-MAE (nca)"),
    ):
        sweep = {0.1 * i: [run(name, 0)] for i, name in enumerate(names)}
        assert mask_ratio.method_of(sweep) == expected


def test_other_figures_show_one_ratio() -> None:
    records = [*ratios(seeds=1), run("frozen at random", 0, ratio=0.4)]
    assert {(r["method"], r["config"]["mask"]["ratio"]) for r in at_one_ratio(records)} == {
        ("MAE", 0.75),
        ("MLO-MAE", 0.75),
        ("frozen at random", 0.4),
    }
    with pytest.raises(DataError, match=r"two records hold seed 0 of MAE at mask ratio 0\.5"):
        sweeps([*records, run("MAE", 0, 1.0, ratio=0.5)])


# --- loss curves ------------------------------------------------------------------------------------------------------


def test_loss_curves_show_means_and_extremes_where_a_level_ran() -> None:
    one = {"iteration": [10, 20, 30], "loss_lower": [3.0, 2.0, 1.0], "loss_head": [None, 6.0, 5.0]}
    other = {"iteration": [10, 20, 30], "loss_lower": [5.0, 4.0, None], "loss_head": [None, None, 7.0]}
    records = [run("MLO-MAE", 0, curves=one), run("MLO-MAE", 1, curves=other), run("MAE", 0)]
    ((figure, sources),) = drawn(loss_curves, inputs(records))
    assert sources == ["000.json", "001.json"]
    lower, head, upper = figure.axes
    assert lines(lower, "mean") == [([10, 20, 30], [4.0, 3.0, 1.0])]
    assert lines(head, "mean") == [([20, 30], [6.0, 6.0])]
    assert lines(upper, "mean") == []
    assert upper.texts[0].get_text() == "not run"
    band = lower.collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in band.tolist()} >= {(10, 3), (10, 5), (20, 2), (20, 4), (30, 1)}


def test_loss_curves_leave_out_other_ratios_than_the_one_shown_elsewhere() -> None:
    varied = [run("MAE", 0), run("MAE", 0, ratio=0.4, curves=curves(0, False)), run("HPM", 0, curves=curves(1, False))]
    ((_, sources),) = drawn(loss_curves, inputs(varied))
    assert sources == ["002.json"]


def test_of_many_methods_those_without_feedback_are_faint_and_counted() -> None:
    records = [run(f"m{i:02d}", 0, curves=curves(i, False)) for i in range(9)]
    records += [run("MAE", 0, curves=curves(9, False)), run("MLO-MAE", 0, curves=curves(10, True))]
    ((figure, _),) = drawn(loss_curves, inputs(records))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "MAE",
        "MLO-MAE",
        "9 methods without levels II and III",
    ]
    assert len(figure.axes[0].lines) == 11
    assert len(lines(figure.axes[0], "mean")) == 2


# --- masks ------------------------------------------------------------------------------------------------------------


def tiles(ax: Axes) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in ax.images]


def test_masks_remove_what_the_file_says(tmp_path: Path) -> None:
    values = mask_values(rows=2, count=3)
    path = write_masks(tmp_path / "m.json", rows=2, count=3)
    ((figure, sources),) = drawn(masks, inputs([], path.parent))
    assert sources == [f"{tmp_path.name}/m.json"]
    (ax,) = figure.axes
    found = tiles(ax)
    assert len(found) == 9
    for row in range(2):
        for column in range(3):
            tile, image = found[3 * (row + 1) + column], found[column]
            bits = np.array([int(c) for c in values["rows"][row]["mask"][column]]).reshape(8, 8)
            removed = np.kron(bits, np.ones((4, 4))).astype(bool)
            assert np.array_equal(tile[~removed], image[~removed])
            if row == 0:
                assert (tile[removed] == REMOVED).all()
            else:  # the darker, the more it weighs
                weight = np.kron(np.array(values["rows"][1]["weight"][column]).reshape(8, 8), np.ones((4, 4)))
                order = np.argsort(weight[removed])
                assert (np.diff(tile[removed][order][:, 0]) <= 1e-9).all()
    assert [t.get_text().replace("\n", " ") for t in ax.texts] == ["image", "MAE", "MAE, same processor time"]
    assert "after 800 outer iterations" in figure.texts[1].get_text().replace("\n", " ")


def test_many_rows_of_masks_stand_in_two_blocks_with_every_row_once(tmp_path: Path) -> None:
    values = mask_values(rows=11)
    values["rows"][3]["iteration"] = 400
    (tmp_path / "b.json").write_text(json.dumps(values))
    write_masks(tmp_path / "a.json", rows=1, count=1)
    with look():
        first, second = masks.draw(inputs([], tmp_path))
    assert (first.name, second.name) == ("masks_a", "masks_b")
    names = [[t.get_text().replace("\n", " ") for t in ax.texts] for ax in second.figure.axes]
    assert [len(found) for found in names] == [7, 6]
    assert all(found[0] == "image" for found in names)
    assert names[0][1:] + names[1][1:] == [row["label"] for row in values["rows"]]
    assert "The first 4 of 8 images" in second.figure.texts[1].get_text()
