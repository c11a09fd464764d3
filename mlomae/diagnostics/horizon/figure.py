"""The figure of the horizon study: predicted against real effects, and their correlation against the horizon.

A point is a policy. In the shaded quadrants prediction and effect have the same sign. In the right panel the band is
what |linear correlation| stays within, 19 times of 20, if all signs were chance.
"""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

# Okabe and Ito's palette, told apart under the usual colour-blindnesses; shapes say the same once more
COLOURS = {"object": "#D55E00", "error": "#0072B2", "contrast": "#009E73"}
MARKERS = {"object": "*", "error": "s", "contrast": "^"}
OTHER, BAND = "#666666", "#e6e6e6"
PANEL = 215.0  # points, roughly the side of a panel
CURVES = (
    ("predicted", "linear", "linear", "#0072B2", "o", "-"),
    ("predicted", "rank", "rank", "#D55E00", "s", "--"),
    ("predicted_adam", "linear", "linear, Adam's scale", "#009E73", "^", ":"),
)


def horizon_figure(result: dict[str, Any]) -> Figure:
    """One row: predicted against real at the shortest and at the longest horizon, then the correlations."""
    horizons = result["horizons"]
    shown = [0, len(horizons) - 1] if len(horizons) > 1 else [0]
    figure = Figure(figsize=(4.2 * (len(shown) + 1), 4.5), layout="constrained")
    *scatters, last = figure.subplots(1, len(shown) + 1)
    for ax, i in zip(scatters, shown, strict=True):
        _scatter(ax, result["policies"], i, horizons[i])
    _correlations(last, result)
    figure.suptitle(_title(result), fontsize=10)
    return figure


def _title(result: dict[str, Any]) -> str:
    count = len(result["policies"])
    parts = [
        f"{result['name']}, iteration {result['iteration']}",
        f"feedback {result['feedback']}",
        f"{count} polic{'ies' if count > 1 else 'y'}, weights 1 ± {result['strength']:g} s",
        f"{result['repeats']} set{'s' if result['repeats'] > 1 else ''} of batches",
    ]
    return "   ·   ".join(parts)


def _scatter(ax: Axes, policies: list[dict[str, Any]], i: int, horizon: int) -> None:
    ax.axhline(0, color="black", linewidth=0.7)
    ax.axvline(0, color="black", linewidth=0.7)
    x, x_power = _scaled([policy["predicted"] for policy in policies])
    y, y_power = _scaled([policy["real"][i]["loss"] for policy in policies])
    names = [policy["name"] for policy in policies]
    for name, (px, sx), (py, sy) in zip(names, x, y, strict=True):
        colour = COLOURS.get(name, OTHER)
        ax.errorbar(px, py, xerr=sx, yerr=sy, color=colour, linewidth=1, zorder=2)
        ax.plot(px, py, MARKERS.get(name, "o"), color=colour, markersize=9 if name == "object" else 6, zorder=3)
    ax.margins(0.15)
    _symmetric(ax)
    _label(ax, names, [(px, py) for (px, _), (py, _) in zip(x, y, strict=True)])
    ax.set_title(f"after {horizon} step{'s' if horizon > 1 else ''}", fontsize=10)
    ax.set_xlabel(f"predicted by the influence of one step ({x_power})", fontsize=9)
    ax.set_ylabel(f"real effect of +s on loss III ({y_power})", fontsize=9)
    ax.tick_params(labelsize=8)


def _scaled(values: list[dict[str, Any]]) -> tuple[list[tuple[float, float | None]], str]:
    """(mean, standard error) in units of a power of ten, and that unit's name: an axis offset would hit the labels."""
    largest = max(abs(value["mean"]) for value in values)
    power = math.floor(math.log10(largest)) if largest else 0
    unit = 10.0**power
    found = [(value["mean"] / unit, None if value["se"] is None else value["se"] / unit) for value in values]
    return found, f"$10^{{{power}}}$"


def _label(ax: Axes, names: list[str], places: list[tuple[float, float]]) -> None:
    """Names beside the points, each in the first of six places that is free of points and other names."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    points = [((x - left) / (right - left) * PANEL, (y - low) / (high - low) * PANEL) for x, y in places]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for name, place, (x, y) in zip(names, places, points, strict=True):
        label = name.replace("_", " ")
        width = 4.4 * len(label)
        choices = [(5.0 if side > 0 else -5.0 - width, up) for side in (1, -1) for up in (3.0, -11.0, 13.0)]
        # at the rim of the panel a name would leave it
        choices = [c for c in choices if 0 <= x + c[0] <= PANEL - width] or choices
        free = [c for c in choices if not any(_overlap((x + c[0], y + c[1], width, 9.0), box) for box in taken)]
        dx, dy = (free or choices)[0]
        taken.append((x + dx, y + dy, x + dx + width, y + dy + 9))
        colour = COLOURS.get(name, OTHER)
        ax.annotate(label, place, (dx, dy), textcoords="offset points", fontsize=8, color=colour)


def _overlap(box: tuple[float, float, float, float], taken: tuple[float, float, float, float]) -> bool:
    """Whether (x, y, width, height) meets (x0, y0, x1, y1)."""
    x, y, width, height = box
    return x < taken[2] and x + width > taken[0] and y < taken[3] and y + height > taken[1]


def _symmetric(ax: Axes) -> None:
    """Zero in the middle, and the two quadrants of one sign shaded."""
    x, y = max(map(abs, ax.get_xlim())), max(map(abs, ax.get_ylim()))
    ax.set(xlim=(-x, x), ylim=(-y, y))
    for side in (-1, 1):
        ax.fill_between([0, side * x], 0, side * y, color=BAND, zorder=0, linewidth=0)


def _correlations(ax: Axes, result: dict[str, Any]) -> None:
    horizons, rows = result["horizons"], result["agreement"]
    ax.axhline(0, color="black", linewidth=0.7)
    chance = [row["predicted"]["chance"] for row in rows]
    if None not in chance:
        ax.fill_between(
            horizons, [-c for c in chance], chance, color=BAND, zorder=0, linewidth=0, label="95 % by chance"
        )
    for key, entry, label, colour, marker, line in CURVES:
        points = [(h, row[key][entry]) for h, row in zip(horizons, rows, strict=True) if row[key][entry] is not None]
        if points:
            ax.plot(*zip(*points, strict=True), line, marker=marker, color=colour, markersize=5, label=label)
    _object_signs(ax, result)
    ax.set_xscale("log")
    spaced = [h for h, after in zip(horizons, [*horizons[1:], math.inf], strict=True) if after >= 1.5 * h]
    ax.set_xticks(spaced, [str(h) for h in spaced])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(0.8 * horizons[0], 1.25 * horizons[-1])
    ax.set(ylim=(-1.35, 1.08), yticks=[-1, -0.5, 0, 0.5, 1])
    ax.set_xlabel("lower steps", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.set_title("correlation of predicted and real effect", fontsize=10)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)


def _object_signs(ax: Axes, result: dict[str, Any]) -> None:
    """A row of stars at the bottom: filled where the object policy's effect has the predicted sign."""
    found = [policy for policy in result["policies"] if policy["name"] == "object"]
    if not found:
        return
    (policy,) = found
    for horizon, row in zip(result["horizons"], policy["real"], strict=True):
        agrees = policy["predicted"]["mean"] * row["loss"]["mean"] > 0
        colour = COLOURS["object"]
        ax.plot(horizon, -1.2, "*", color=colour, markersize=9, markerfacecolor=colour if agrees else "white")
    ax.annotate("object: sign as predicted (hollow: not)", (0.02, 0.01), xycoords="axes fraction", fontsize=7)
