"""The result of the horizon study: correlations of predicted and real effects, as numbers, a table and a figure.

The mirror −s of a policy is as good a policy, with effect −D and prediction −p. Agreement must not depend on which of
the two was drawn, so correlations are taken over the policies and their mirrors: the linear correlation is then the
cosine of p and D, and the rank correlation the cosine of their signed ranks (Spearman's on the mirrored set).

In the figure a point is a policy, and in the shaded quadrants prediction and effect have the same sign. In the right
panel the band would hold |linear correlation| in 95 % of cases if all signs were chance.

Shape legend: J policies, F sign flips.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from scipy.stats import rankdata

from mlomae.common import random_keys
from mlomae.diagnostics.horizon.effects import Measured
from mlomae.pretraining.health import spread

FLIPS = 12  # policies up to which all signs are enumerated; 2**FLIPS random ones for more
Vector = NDArray[np.float64]

# Okabe and Ito's palette, safe for the usual kinds of colour-blindness; the markers differ too
COLOURS = {"object": "#D55E00", "error": "#0072B2", "contrast": "#009E73"}
MARKERS = {"object": "*", "error": "s", "contrast": "^"}
OTHER, BAND = "#666666", "#e6e6e6"
PANEL = 215.0  # points, roughly the side of a panel
CURVES = (
    ("predicted", "linear", "linear", "#0072B2", "o", "-"),
    ("predicted", "rank", "rank", "#D55E00", "s", "--"),
    ("predicted_adam", "linear", "linear, Adam's scale", "#009E73", "^", ":"),
)


def mean_se(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its standard error; the error is None for one value."""
    found = spread(values)
    return {"mean": found.mean, "se": None if found.sd is None else found.sd / math.sqrt(found.batches)}


def effect(
    pairs: Sequence[tuple[Sequence[Measured], Sequence[Measured]]], horizons: Sequence[int], strength: float
) -> list[dict[str, Any]]:
    """D of L_III and of the accuracy (points) at every horizon, from one pair of roll-outs (+ε, −ε) per repeat."""
    rows = []
    for i, horizon in enumerate(horizons):
        row: dict[str, Any] = {"horizon": horizon}
        for key in Measured._fields:
            differences = [getattr(up[i], key) - getattr(down[i], key) for up, down in pairs]
            row[key] = mean_se([d / (2.0 * strength) for d in differences])
            row[f"{key}_up"] = mean_se([getattr(up[i], key) for up, _ in pairs])["mean"]
            row[f"{key}_down"] = mean_se([getattr(down[i], key) for _, down in pairs])["mean"]
        rows.append(row)
    return rows


def cosine(a_J: Vector, b_J: Vector) -> float | None:
    """None where one of the two vanishes."""
    size = float(np.linalg.norm(a_J) * np.linalg.norm(b_J))
    return float(a_J @ b_J) / size if size > 0 else None


def signed_ranks(x_J: Vector) -> Vector:
    """Centred ranks of x among x and −x: sign(x)·(rank of |x| − ½), ties by their mean rank."""
    return np.sign(x_J) * (rankdata(np.abs(x_J)) - 0.5)


def chance_level(a_J: Vector, b_J: Vector) -> float | None:
    """The 95th percentile of |cosine| if the toss of a coin decided whether a policy agrees in sign."""
    terms_J, size = a_J * b_J, float(np.linalg.norm(a_J) * np.linalg.norm(b_J))
    n = len(terms_J)
    if not size > 0:
        return None
    if n <= FLIPS:
        flips_FJ = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
    else:
        keys = random_keys.fold(random_keys.root_key("horizon/flips"), torch.arange(1 << FLIPS))
        flips_FJ = (random_keys.uniform(keys, n) > 0.5).numpy()
    return float(np.quantile(np.abs((2.0 * flips_FJ - 1.0) @ terms_J), 0.95)) / size


def agreement(predicted: Sequence[float], real: Sequence[float]) -> dict[str, float | int | None]:
    """``linear``, ``rank`` and ``chance`` as above, None below 3 policies; ``same_sign``, a number of policies."""
    p_J, d_J = np.asarray(predicted, dtype=np.float64), np.asarray(real, dtype=np.float64)
    enough = len(p_J) >= 3
    return {
        "linear": cosine(p_J, d_J) if enough else None,
        "rank": cosine(signed_ranks(p_J), signed_ranks(d_J)) if enough else None,
        "chance": chance_level(p_J, d_J) if enough else None,
        "same_sign": int((p_J * d_J > 0).sum()),
    }


def agreements(policies: Sequence[dict[str, Any]], horizons: Sequence[int]) -> list[dict[str, Any]]:
    """For every horizon: ``agreement`` of the influence and of the influence in AdamW's scale with the real effect."""
    rows = []
    for i, horizon in enumerate(horizons):
        real = [policy["real"][i]["loss"]["mean"] for policy in policies]
        row: dict[str, Any] = {"horizon": horizon}
        for key in ("predicted", "predicted_adam"):
            row[key] = agreement([policy[key]["mean"] for policy in policies], real)
        rows.append(row)
    return rows


def table(result: dict[str, Any]) -> str:
    """The result as text: a row for each policy, a column for each horizon, then the correlations."""
    horizons, start, rows = result["horizons"], result["start"], result["agreement"]
    name = max(len(label) for label in ("linear, Adam scale", *(policy["name"] for policy in result["policies"])))
    last = f"accuracy at {horizons[-1]}"
    lines = [
        f"{result['name']}, iteration {result['iteration']}: feedback '{result['feedback']}', loss III "
        f"{start['loss']:.4f}, accuracy {start['accuracy']:.1f} %; weights 1 ± {result['strength']:g} s, rate "
        f"{result['lr']:.3g}",
        "effect per unit of s on loss III; negative: weight where the policy is high lowers it",
        f"{'policy':{name}s} {'predicted ± se':>22s}"
        + "".join(f"{f'real at {h}':>14s}" for h in horizons)
        + f"{last:>19s}",
    ]
    for policy in result["policies"]:
        predicted = policy["predicted"]
        error = "" if predicted["se"] is None else f" ± {predicted['se']:.1e}"
        real = "".join(f"{row['loss']['mean']:+14.2e}" for row in policy["real"])
        points = f"{policy['real'][-1]['accuracy']['mean']:+.2f} points"
        lines.append(f"{policy['name']:{name}s} {predicted['mean']:+12.2e}{error:10s}{real}{points:>19s}")
    for label, key, entry, form in (
        ("linear correlation", "predicted", "linear", "{:+.2f}"),
        ("rank correlation", "predicted", "rank", "{:+.2f}"),
        ("linear, Adam scale", "predicted_adam", "linear", "{:+.2f}"),
        ("95 % by chance", "predicted", "chance", "±{:.2f}"),
        ("same sign", "predicted", "same_sign", f"{{}} of {len(result['policies']):<2d}"),
    ):
        cells = ("-" if row[key][entry] is None else form.format(row[key][entry]) for row in rows)
        lines.append(f"{label:{name}s} {'':22s}" + "".join(f"{cell:>14s}" for cell in cells))
    return "\n".join(lines)


# --- the figure -------------------------------------------------------------------------------------------------------


def horizon_figure(result: dict[str, Any]) -> Figure:
    """One row: predicted against real at the shortest and at the longest horizon, then the correlations."""
    horizons = result["horizons"]
    shown = [0, len(horizons) - 1] if len(horizons) > 1 else [0]
    figure = Figure(figsize=(4.2 * (len(shown) + 1), 4.5), layout="constrained")
    *scatters, last = figure.subplots(1, len(shown) + 1)
    for ax, i in zip(scatters, shown, strict=True):
        _scatter(ax, result["policies"], i, horizons[i])
    _correlations(last, result)
    count, repeats = len(result["policies"]), result["repeats"]
    parts = [
        f"{result['name']}, iteration {result['iteration']}",
        f"feedback {result['feedback']}",
        f"{count} polic{'ies' if count > 1 else 'y'}, weights 1 ± {result['strength']:g} s",
        f"{repeats} set{'s' if repeats > 1 else ''} of batches",
    ]
    figure.suptitle("   ·   ".join(parts), fontsize=10)
    return figure


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
    right, high = (max(map(abs, limits)) for limits in (ax.get_xlim(), ax.get_ylim()))
    ax.set(xlim=(-right, right), ylim=(-high, high))  # zero in the middle
    for side in (-1, 1):  # the two quadrants of one sign
        ax.fill_between([0, side * right], 0, side * high, color=BAND, zorder=0, linewidth=0)
    _label(ax, names, [(px, py) for (px, _), (py, _) in zip(x, y, strict=True)])
    ax.set_title(f"after {horizon} step{'s' if horizon > 1 else ''}", fontsize=10)
    ax.set_xlabel(f"predicted by the influence of one step ({x_power})", fontsize=9)
    ax.set_ylabel(f"real effect of +s on loss III ({y_power})", fontsize=9)
    ax.tick_params(labelsize=8)


def _scaled(values: list[dict[str, Any]]) -> tuple[list[tuple[float, float | None]], str]:
    """(mean, standard error) in units of a power of ten, and that unit's name: matplotlib would write the power
    over the labels."""
    largest = max(abs(value["mean"]) for value in values)
    power = math.floor(math.log10(largest)) if largest else 0
    unit = 10.0**power
    scaled = [(value["mean"] / unit, None if value["se"] is None else value["se"] / unit) for value in values]
    return scaled, f"$10^{{{power}}}$"


def _label(ax: Axes, names: list[str], places: list[tuple[float, float]]) -> None:
    """Write the names next to the points, each in the first of six places that is free of points and other names."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    points = [((x - left) / (right - left) * PANEL, (y - low) / (high - low) * PANEL) for x, y in places]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in points]
    for name, place, (x, y) in zip(names, places, points, strict=True):
        label = name.replace("_", " ")
        width = 4.4 * len(label)
        choices = [(5.0 if side > 0 else -5.0 - width, up) for side in (1, -1) for up in (3.0, -11.0, 13.0)]
        # near the edge of the panel a name would stick out
        choices = [c for c in choices if 0 <= x + c[0] <= PANEL - width] or choices
        boxes = [Bbox.from_bounds(x + dx, y + dy, width, 9.0) for dx, dy in choices]
        chosen = next((i for i, box in enumerate(boxes) if not box.count_overlaps(taken)), 0)
        taken.append(boxes[chosen])
        colour = COLOURS.get(name, OTHER)
        ax.annotate(label, place, choices[chosen], textcoords="offset points", fontsize=8, color=colour)


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
    for policy in (policy for policy in result["policies"] if policy["name"] == "object"):
        # stars at the bottom, filled where the policy's effect has the predicted sign
        for h, row in zip(horizons, policy["real"], strict=True):
            fill = COLOURS["object"] if policy["predicted"]["mean"] * row["loss"]["mean"] > 0 else "white"
            ax.plot(h, -1.2, "*", color=COLOURS["object"], markersize=9, markerfacecolor=fill)
        ax.annotate("object: sign as predicted (hollow: not)", (0.02, 0.01), xycoords="axes fraction", fontsize=7)
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
