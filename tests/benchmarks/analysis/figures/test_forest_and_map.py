"""The forest plot and the map: their points and intervals are those of the tables, their colours what these say."""

from typing import Any

import numpy as np
import pytest
from record_samples import CONFIG, make_record

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures import forest, shares
from benchmarks.analysis.figures.runs import NothingToDrawError
from benchmarks.analysis.figures.style import BLACK, look
from benchmarks.analysis.statistics import seed_interval


def run(method: str, seed: int, knn: float, share: float = 0.5, **mask: Any) -> dict[str, Any]:
    train = {"type": "on_scenes", "share": share}
    return make_record(
        method=method,
        seed=seed,
        name=f"{method}_{share}",
        dataset=f"on scenes, {share:.0%}",
        config={**CONFIG, "mask": {"type": "random", **mask}, "data": {"train": train, "eval": dict(train)}},
        metrics={"knn_top1_avg": knn, "linear_top1_avg": 2 * knn, "knn_top1_cls": knn / 2, "linear_top1_cls": 3 * knn},
    )


def records(share: float, image: float) -> list[dict[str, Any]]:
    """MAE at 40, an oracle whose parts are 1, 2 and ``image``, and a learned mask with half of the image part."""
    noise = [0.0, 0.3, -0.2]
    levels: dict[str, tuple[float, dict[str, Any]]] = {
        "MAE": (40.0, {}),
        "region": (41.0, {"type": "oracle", "patches": "region"}),
        "shuffled": (43.0, {"type": "oracle", "patches": "shuffled"}),
        "oracle": (43.0 + image, {"type": "oracle"}),
        "MLO-MAE (nca, mask pooling)": (43.0 + image / 2, {"type": "learned"}),
    }
    return [
        run(method, seed, level + noise[(seed + i) % 3], share, **mask)
        for i, (method, (level, mask)) in enumerate(levels.items())
        for seed in range(3)
    ]


def evidence(found: list[dict[str, Any]]) -> Evidence:
    return Evidence({f"{i}.json": record for i, record in enumerate(found)})


def test_the_map_draws_the_parts_of_every_share() -> None:
    with look():
        (drawn,) = shares.draw(evidence([*records(0.25, 6.0), *records(0.5, 1.0)]))
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
    alone = [r for r in records(0.5, 1.0) if r["method"] in ("MAE", "oracle")]
    with pytest.raises(NothingToDrawError, match="map_50"):
        shares.draw(evidence(alone))
    elsewhere = records(0.5, 1.0)
    for r in elsewhere:
        r["config"]["data"]["train"]["type"] = "textures"
    with pytest.raises(NothingToDrawError):
        shares.draw(evidence(elsewhere))


def test_the_forest_has_the_differences_and_their_verdicts() -> None:
    found = [run("MAE", s, 40.0 + s) for s in range(3)]
    found += [run("better", s, 50.0 + s + 0.1 * (s % 2)) for s in range(3)]
    found += [run("equal", s, 40.0 + s + 0.05 * (-1) ** s) for s in range(3)]
    wild = [41.0, 60.0, 30.0]
    found += [run("not settled", s, value) for s, value in enumerate(wild)]
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
    found = [run(method, s, 40.0 + s) for method in ("MAE", "other") for s in range(2)]
    with pytest.raises(NothingToDrawError, match="over 3 seeds"):
        forest.draw(evidence(found))
