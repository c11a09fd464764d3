"""Accuracy against cost: processor seconds, wall-clock, images seen. One row of panels for each setting.

A marker is one configuration of a method, the mean over its seeds; its number refers to the legend. The grey steps are
the Pareto front: the best accuracy at the same cost or less, without oracles, which know the objects.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from benchmarks.analysis.comparable import METRICS, methods_of, reads_objects
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.labels import STRIP, label_points, side_by_side
from benchmarks.analysis.figures.runs import (
    RATIO,
    Drawn,
    NothingToDrawError,
    at_one_ratio,
    count_phrase,
    mean_and_bar,
    settings,
)
from benchmarks.analysis.figures.style import FAINT, Style, entry, page, styles
from mlomae.records import Record, hardware_phrase

HEIGHT, TALL, MANY = 2.0, 2.7, 12  # inches per panel, and that of a panel with many points
COSTS: dict[str, Callable[[Record], float]] = {
    "processor time (s)": lambda r: float(r["cpu_s"]),
    "wall-clock (s)": lambda r: float(r["wall_clock_s"]),
    "images seen by all levels (thousands)": lambda r: sum(r["images_seen"].values()) / 1000,
}
FILES = {"knn_top1_avg": "cost", "linear_top1_avg": "cost_linear"}


class Point(NamedTuple):
    """Mean and sample standard deviation, 0 for one seed, of a cost and of an accuracy."""

    method: str
    oracle: bool
    cost: tuple[float, float]
    accuracy: tuple[float, float]


def draw(evidence: Evidence) -> list[Drawn]:
    """One figure per accuracy: `cost` for k-NN, `cost_linear` for the linear probe."""
    found = evidence.probed
    if not found:
        raise NothingToDrawError("no pretraining run is on record; `make suite` or `make pretrain` make some")
    records = at_one_ratio(found)
    note = f" Mask ratio {RATIO:g} where it was varied." if len(records) < len(found) else ""
    compared = [runs for runs in settings(records).values() if len(methods_of(runs)) > 1]
    records = [r for runs in compared for r in runs] or records
    return [Drawn(FILES[m], _figure(records, m, METRICS[m], note), evidence.files_of(records)) for m in METRICS]


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, accuracy) pairs those that nothing beats at equal or lower cost, by cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


def _figure(records: list[Record], metric: str, name: str, note: str) -> Figure:
    panels = settings(records)
    methods = sorted({r["method"] for r in records})
    looks = styles(methods)
    numbers = {method: i for i, method in enumerate(looks, start=1)}
    oracles = {r["method"] for r in records if reads_objects(r)}
    seeds = count_phrase(runs for found in panels.values() for runs in methods_of(found))
    caption = (
        f"Mean over seeds of a configuration, bars ± sample standard deviation (none for one seed); {seeds}. Frozen "
        "encoder, mean of the patch tokens. Grey steps: the Pareto front"
    )
    caption += "; hollow: oracles, which know the objects and are not part of it." if oracles else "."
    machines = " / ".join(sorted({hardware_phrase(r) for r in records}))
    caption += f" Markers of equal cost are set side by side.{note} Measured on {machines}."
    figure, axes = page(
        len(panels),
        len(COSTS),
        TALL if max(len(methods_of(runs)) for runs in panels.values()) > MANY else HEIGHT,
        title=f"Accuracy ({name}) against the cost of pretraining",
        caption=caption,
        legend=[(entry(looks[m], line=False, hollow=m in oracles), f"{numbers[m]}  {m}") for m in looks],
        share_y="row",
    )
    drawn: list[tuple[Axes, list[Point]]] = []
    for row, (title, runs) in zip(axes, panels.items(), strict=True):
        row[0].set_title(title, loc="left")
        row[0].set_ylabel(f"{name} accuracy (%)")
        for ax, (label, cost) in zip(row, COSTS.items(), strict=True):
            points = []
            for found in methods_of(runs):
                accuracy = mean_and_bar(r["metrics"][metric] for r in found)
                points.append(
                    Point(found[0]["method"], reads_objects(found[0]), mean_and_bar(map(cost, found)), accuracy)
                )
            _limits(ax, points)
            ax.set_xlabel(label)
            drawn.append((ax, points))
    figure.draw_without_rendering()  # label positions depend on the final layout
    figure.set_layout_engine("none")
    for ax, points in drawn:
        places = [(p.cost[0], p.accuracy[0]) for p in points]
        moved = side_by_side(ax, places)
        for p, right in zip(points, moved, strict=True):
            _point(ax, p, looks[p.method], right)
        if steps := front([place for place, p in zip(places, points, strict=True) if not p.oracle]):
            xs, ys = zip(*steps, (ax.get_xlim()[1], steps[-1][1]), strict=True)
            ax.add_artist(Line2D(xs, ys, drawstyle="steps-post", color=FAINT, linewidth=1.2, zorder=1, gid="front"))
        texts = [str(numbers[p.method]) for p in points]
        label_points(ax, [(*place, right) for place, right in zip(places, moved, strict=True)], texts)
    return figure


def _limits(ax: Axes, points: list[Point]) -> None:
    """Fit all bars, with room for labels at the edge, more where they form columns beside points of equal cost."""
    equal = Counter(p.cost[0] for p in points).most_common(1)[0][1]
    shares = {"x": 0.3 if equal >= STRIP else 0.17, "y": 0.12}
    for axis, values in (("x", [p.cost for p in points]), ("y", [p.accuracy for p in points])):
        low, high = min(mean - sd for mean, sd in values), max(mean + sd for mean, sd in values)
        room = shares[axis] * (high - low) or 0.05 * abs(high) or 1.0
        ax.set(**{f"{axis}lim": (low - room, high + room)})


def _point(ax: Axes, p: Point, style: Style, right: float) -> None:
    """Marker and bars, shifted ``right`` points to the right."""
    (x, x_sd), (y, y_sd) = p.cost, p.accuracy
    moved = ax.transData + ScaledTranslation(right / 72, 0, ax.figure.dpi_scale_trans)
    for xs, ys in (((x - x_sd, x + x_sd), (y, y)), ((x, x), (y - y_sd, y + y_sd))):
        if (xs[0], ys[0]) != (xs[1], ys[1]):
            ax.add_artist(Line2D(xs, ys, color=style.colour, linewidth=0.8, alpha=0.6, transform=moved, zorder=2))
    marker = entry(style, line=False, hollow=p.oracle)
    marker.set(xdata=[x], ydata=[y], transform=moved, zorder=3, gid=p.method)
    ax.add_artist(marker)
