"""Loss curves of the three levels (the paper's figure 4), from the records' field ``curves``.

    {"iteration": [...], "loss_lower": [...], "loss_head": [...], "loss_upper": [...]}

Lists are as long as ``iteration`` and hold null where a level did not run; a level that never runs may be left out.
Reading a record checks them.
"""

import statistics

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from benchmarks.analysis.comparable import BASELINE, methods_of
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures.runs import Drawn, NothingToDrawError, at_one_ratio, count_phrase, settings
from benchmarks.analysis.figures.style import COLOURS, FAINT, GREY, Style, entry, page, styles
from mlomae.records import Record

HEIGHT = 2.1  # inches per panel
LEVELS = {"loss_lower": "I: reconstruction", "loss_head": "II: feedback head", "loss_upper": "III: masking"}
UNITS = ("weighted squared error", "feedback loss", "feedback loss")
MANY = len(COLOURS)  # methods that can be told apart at a glance; if there are more, those without feedback are faint
Curve = dict[int, tuple[float, float, float]]  # iteration -> mean, lowest, highest over seeds
_FAINT = Style(FAINT, "", "-")


def draw(evidence: Evidence) -> list[Drawn]:
    """The figure `loss_curves`: one row for each setting, one panel for each level."""
    records = [r for r in at_one_ratio(evidence.of_task("pretrain")) if r.get("curves") is not None]
    if not records:
        raise NothingToDrawError("no pretraining record has the field 'curves'; runs from now on write it")
    panels = {title: methods_of(runs) for title, runs in settings(records).items()}
    told = methods = {r["method"] for r in records}
    if len(methods) > MANY:
        fed = {r["method"] for r in records if any(v is not None for v in r["curves"].get("loss_upper", []))}
        told = fed | ({BASELINE} & methods)
    looks = styles(told) | dict.fromkeys(sorted(methods - told), _FAINT)
    caption = (
        "Lines: mean over seeds at each logged iteration; bands: lowest to highest seed; "
        f"{count_phrase(runs for found in panels.values() for runs in found)}. Level I weights the errors of "
        "patches by the method's own scores, levels II and III use its own feedback: compare the shapes of curves, not "
        "their heights."
    )
    legend: list[tuple[Artist, str]] = [(entry(s), method) for method, s in looks.items() if s is not _FAINT]
    if faint := len(methods - told):
        legend.append((Line2D([], [], color=FAINT, linewidth=0.8), f"{faint} methods without levels II and III"))
    title = "Losses of the three levels"
    figure, axes = page(len(panels), len(LEVELS), HEIGHT, title=title, caption=caption, legend=legend)
    for row, (title, found) in zip(axes, panels.items(), strict=True):
        for ax, (key, name), unit in zip(row, LEVELS.items(), UNITS, strict=True):
            for runs in found:
                if curve := curve_of(runs, key):
                    _line(ax, curve, looks[runs[0]["method"]])
            ax.set_title(f"{title}\n{name}" if ax is row[0] else name, loc="left")
            ax.set_xlabel("outer iterations")
            ax.set_ylabel(unit)
            if not ax.lines:
                ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color=GREY)
    return [Drawn("loss_curves", figure, evidence.files_of(records))]


def curve_of(runs: list[Record], key: str) -> Curve:
    """Mean, lowest and highest over the seeds that have a value, at every iteration where one has."""
    found: dict[int, list[float]] = {}
    for r in runs:
        for iteration, value in zip(r["curves"]["iteration"], r["curves"].get(key, []), strict=False):
            if value is not None:
                found.setdefault(iteration, []).append(float(value))
    return {i: (statistics.fmean(v), min(v), max(v)) for i, v in sorted(found.items())}


def _line(ax: Axes, curve: Curve, style: Style) -> None:
    x, (mean, low, high) = list(curve), zip(*curve.values(), strict=True)
    if style is _FAINT:
        ax.plot(x, mean, color=FAINT, linewidth=0.6, zorder=1)
        return
    ax.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0)
    every = max(1, len(x) // 6)
    ax.plot(x, mean, style.line, color=style.colour, marker=style.marker, markevery=every, markersize=3.5, gid="mean")
