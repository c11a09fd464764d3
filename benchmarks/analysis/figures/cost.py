"""Accuracy against processor time, a panel for each setting.

A marker is one configuration of a method, the mean over its seeds, with the method's name. The grey steps are the
Pareto front: the best accuracy at the same cost or less, without oracles, which know the objects.
"""

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.analysis.comparable import METRICS, methods_of, reads_objects
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.labels import GAP, names_beside
from benchmarks.analysis.figures.runs import (
    RATIO,
    Drawn,
    NothingToDrawError,
    at_one_ratio,
    count_phrase,
    mean_and_bar,
    settings,
)
from benchmarks.analysis.figures.style import FAINT, PAD, WIDTH, Style, entry, page, styles, text_width
from mlomae.records import Record, hardware_phrase

HEIGHT, EACH = 1.6, 0.1  # inches of a panel, and for each of its points
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
    looks = styles({r["method"] for r in records})
    seeds = count_phrase(runs for found in panels.values() for runs in methods_of(found))
    caption = (
        f"Mean over seeds of a configuration, bars ± sample standard deviation (none for one seed); {seeds}. Frozen "
        "encoder, mean of the patch tokens. Grey steps: the Pareto front"
    )
    oracles = any(reads_objects(r) for r in records)
    caption += "; hollow: oracles, which know the objects and are not part of it." if oracles else "."
    machines = " / ".join(sorted({hardware_phrase(r) for r in records}))
    caption += f"{note} Measured on {machines}."
    points = [
        [
            Point(
                found[0]["method"],
                reads_objects(found[0]),
                mean_and_bar(float(r["cpu_s"]) for r in found),
                mean_and_bar(r["metrics"][metric] for r in found),
            )
            for found in methods_of(runs)
        ]
        for runs in panels.values()
    ]
    figure, axes = page(
        len(panels),
        1,
        [HEIGHT + EACH * len(found) for found in points],
        title=f"Accuracy ({name}) against the processor time of pretraining",
        caption=caption,
    )
    for ax, panel, found in zip(axes[:, 0], panels, points, strict=True):
        ax.set_title(panel, loc="left")
        ax.set_ylabel(f"{name} accuracy (%)")
        ax.set_xlabel("processor time (s)")
        _limits(ax, found)
    figure.draw_without_rendering()  # names are placed in the final layout
    figure.set_layout_engine("none")
    room = max(text_width(method) for method in looks) + GAP + 72 * PAD
    for ax, found in zip(axes[:, 0], points, strict=True):
        place = ax.get_position()
        ax.set_position((place.x0, place.y0, 1 - room / 72 / WIDTH - place.x0, place.height))
        for p in found:
            _point(ax, p, looks[p.method])
        if steps := front([(p.cost[0], p.accuracy[0]) for p in found if not p.oracle]):
            xs, ys = zip(*steps, (ax.get_xlim()[1], steps[-1][1]), strict=True)
            ax.add_artist(Line2D(xs, ys, drawstyle="steps-post", color=FAINT, linewidth=1.2, zorder=1, gid="front"))
        places = [(p.cost[0], p.accuracy[0]) for p in found]
        names_beside(ax, places, [p.method for p in found], [looks[p.method].colour for p in found])
    return figure


def _limits(ax: Axes, points: list[Point]) -> None:
    """Fit all bars."""
    for axis, values in (("x", [p.cost for p in points]), ("y", [p.accuracy for p in points])):
        low, high = min(mean - sd for mean, sd in values), max(mean + sd for mean, sd in values)
        room = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
        ax.set(**{f"{axis}lim": (low - room, high + room)})


def _point(ax: Axes, p: Point, style: Style) -> None:
    """Marker and bars."""
    (x, x_sd), (y, y_sd) = p.cost, p.accuracy
    for xs, ys in (((x - x_sd, x + x_sd), (y, y)), ((x, x), (y - y_sd, y + y_sd))):
        if (xs[0], ys[0]) != (xs[1], ys[1]):
            ax.add_artist(Line2D(xs, ys, color=style.colour, linewidth=0.8, alpha=0.6, zorder=2))
    marker = entry(style, line=False, hollow=p.oracle)
    marker.set(xdata=[x], ydata=[y], zorder=3, gid=p.method)
    ax.add_artist(marker)
