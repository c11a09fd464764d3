"""The comparison of all methods on all tasks: a tidy CSV, and a page with one wide table a pretraining setting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from benchmarks.analysis.comparable import BASELINE, METRICS, SAME_TIME
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.published import EVIDENCE, PublishedNumber
from benchmarks.analysis.tables.comparison import COLUMNS, KEYS, MEASURED, SECTION, comparison_rows
from benchmarks.analysis.tables.headroom_table import MIN_HEADROOM
from benchmarks.analysis.tables.markdown import markdown_head, markdown_table
from benchmarks.analysis.tables.table import BEHIND, formatted, make_frame
from benchmarks.tasks import all_tasks
from mlomae.records import RANDOM

LEVEL = 0.05  # of p after Holm's correction, below which a difference is marked
_FORMATS = {
    "mean": ".2f",
    "sd": ".2f",
    "difference": "+.2f",
    "low": "+.2f",
    "high": "+.2f",
    "p": ".3g",
    "p_holm": ".3g",
    "pairs": ".0f",
    "share_of_headroom": ".2f",
    "pretraining_images_seen": ".0f",
    "pretraining_wall_clock_s": ".1f",
    "pretraining_cpu_s": ".1f",
    "pretraining_flops": ".3g",
}
COSTS = {"images_seen": "images seen", "cpu_s": "CPU (s)", "wall_clock_s": "wall-clock (s)", "flops": "FLOPs"}
_TITLES = METRICS | {metric.name: metric.title for task in all_tasks() for metric in task.metrics}
MARKS = {"images and seeds": "<sup>is</sup>", "images": "<sup>i</sup>", "seeds": "<sup>s</sup>"}  # drawn anew
_FIRST = (BASELINE, SAME_TIME, RANDOM)
_METHOD = ["method", "pretraining_config"]
Row = dict[Any, Any]


def comparison_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """`comparison_rows` as text: metrics in percent, differences in percentage points, costs of the pretraining."""
    text = make_frame(rows, COLUMNS, KEYS)
    for column, spec in _FORMATS.items():
        text[column] = formatted(text[column], spec)
    for kind in EVIDENCE:
        text[f"published_{kind}"] = ["; ".join(n.phrase for n in numbers) for numbers in text[f"published_{kind}"]]
    return text


def marked(row: Row) -> bool:
    """Whether the difference to MAE is one after Holm's correction. Not of one seed, for runs may differ where methods
    do not."""
    return bool(row["p_holm"]) and float(row["p_holm"]) < LEVEL and row["interval"] != "images"


def spread(row: Row) -> str:
    """Mean, standard deviation over seeds, and their number."""
    return f"{row['mean']} ± {row['sd']} ({row['seeds']})" if row["sd"] else f"{row['mean']} ({row['seeds']})"


def _cell(row: Row) -> str:
    """Mean, spread and count; beneath, what it is less MAE's, and the share of the headroom that it captures."""
    lines = [spread(row)]
    if row["difference"]:
        interval = f" [{row['low']}, {row['high']}]{MARKS[row['interval']]}" if row["low"] else ""
        lines.append(f"{row['difference']}{'†' if marked(row) else ''}{interval}")
    if row["share_of_headroom"]:
        lines.append(f"share {row['share_of_headroom']}")
    return "<br>".join(lines)


def _by(rows: Iterable[Row], columns: list[str]) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[c] for c in columns), []).append(row)
    return groups


def metric_title(row: Row) -> str:
    """The metric's name as the tables of its task have it."""
    return _TITLES[row["metric"]]


def column_title(row: Row, ambiguous: bool = False) -> str:
    """What a column measures; with the hash of the transfer's setting where that is ``ambiguous`` without."""
    lines = [f"{metric_title(row)} (%), {row['dataset']}"]
    lines += [f"{row['recipe']}, {row['protocol']}"] if row["recipe"] else []
    return "<br>".join([*lines, f"setting {row['transfer_setting']}"] if ambiguous else lines)


def columns_of(rows: list[Row]) -> list[tuple[str, dict[tuple[str, ...], Row]]]:
    """The columns of a section in order, a task, data set and metric each: (title, rows by `methods_of`'s keys)."""
    columns = sorted(_by(rows, MEASURED).items(), key=lambda item: (item[0][0] != "pretrain", item[0]))
    titles = [column_title(found[0]) for _, found in columns]
    named = []
    for title, (_, found) in zip(titles, columns, strict=True):
        name = column_title(found[0], True) if titles.count(title) > 1 else title
        named.append((name, {key: row for key, (row, *_) in _by(found, _METHOD).items()}))
    return named


def methods_of(rows: list[Row]) -> dict[tuple[str, ...], list[Row]]:
    """(method, config of its pretraining) -> rows, in the order of a section's lines: what is compared with first."""
    methods = _by(rows, _METHOD)
    order = sorted(methods, key=lambda key: (_FIRST.index(key[0]) if key[0] in _FIRST else len(_FIRST), key))
    return {key: methods[key] for key in order}


def cost_row(rows: list[Row], cost: str) -> Row:
    """Of a method's rows the one of most seeds that knows a cost of ``COSTS``: a task may have some seeds alone."""
    return max(rows, key=lambda row: (bool(row[f"pretraining_{cost}"]), int(row["seeds"])))


def _wide(rows: list[Row]) -> list[str]:
    """One table: a line a method, what its pretraining cost, a column a task, data set and metric, published beside."""
    shown: list[tuple[str, dict[tuple[str, ...], str]]] = []
    for name, by_method in columns_of(rows):
        shown.append((name, {key: _cell(row) for key, row in by_method.items()}))
        for kind in EVIDENCE:
            numbers = {key: row[f"published_{kind}"] for key, row in by_method.items()}
            shown += [(f"{name}<br>published ({kind})", numbers)] if any(numbers.values()) else []
    lines = []
    for key, found in methods_of(rows).items():
        costs = [cost_row(found, cost)[f"pretraining_{cost}"] for cost in COSTS]
        lines.append([*key, *costs, *(cells.get(key, "") for _, cells in shown)])
    return markdown_table(["method", "config", *COSTS.values(), *(name for name, _ in shown)], lines)


def sections(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one pretraining setting together: by data set, that of most rows first; those of unknown weights last."""
    groups = _by(rows, SECTION).items()
    return [found for _, found in sorted(groups, key=lambda item: (not item[0][0], item[0][0], -len(item[1]), item[0]))]


def section_title(row: Row) -> str:
    """What a section's backbones were pretrained on."""
    dataset, setting = row["pretraining_dataset"], row["pretraining_setting"]
    return f"Pretrained on {dataset}" + (f", setting {setting}" if setting else "") if dataset else "Other weights"


def section_note(rows: list[Row]) -> str:
    """The images and the model of a section's pretrainings."""
    if not rows[0]["pretraining_dataset"]:
        return "What they were pretrained on is not on record."
    probes = next((row for row in rows if row["task"] == "pretrain"), None)
    if probes is None:
        return "The pretraining is not on record."
    record = probes[BEHIND][""][0][1][0]
    model = ", ".join(f"{k} {v}" for k, v in sorted(record["config"].get("model", {}).items()) if v is not None)
    return f"{record['train_source']}; {model}."


def _published_table(numbers: list[PublishedNumber]) -> list[str]:
    columns = ["method", "backbone", "pretraining epochs", "task", "dataset", "metric", "value", "evidence"]
    rows = []
    for n in numbers:
        epochs = str(n.pretrain_epochs or "")
        rows.append([n.method, n.backbone, epochs, n.task, n.dataset, n.metric, n.value, n.evidence, n.source, n.note])
    return markdown_table([*columns, "source", "note"], rows)


def comparison_page(frame: pd.DataFrame, published: list[PublishedNumber], used: set[int]) -> str:
    """The Markdown of `comparison_frame`; ``used``: the lines of ``published`` that stand beside a measured number."""
    rows = frame.to_dict("records")
    lines = markdown_head("Comparison")
    lines += [legend(rows), ""]
    for found in sections(rows):
        lines += [f"## {section_title(found[0])}", "", section_note(found), "", *_wide(found), ""]
    if not used:
        lines += [
            "No published number lines up with a run above: to stand beside one, method, backbone (ViT-B, L or H at "
            "224 pixels, pretrained on all of ImageNet), data set (all of it) and protocol must be the same.",
            "",
        ]
    left = [n for n in published if n.line not in used]
    lines += [
        "## Published",
        "",
        "What others report and nothing here measures, as `published.csv` has it. Primary: said by the authors of the "
        "method or of a reproduction; secondary: by the table of another paper.",
        "",
    ]
    return "\n".join([*lines, *_published_table(left)]) + "\n"


def legend(rows: list[Row]) -> str:
    """What one needs to read the comparison of ``rows``, in Markdown."""
    compared = sum(bool(row["p"]) for row in rows)
    return (
        "Mean ± sample standard deviation over seeds (their number). Beneath: percentage points more than MAE that has "
        f"seen as many images, runs of the same seed paired, with a 95 % interval. `{SAME_TIME}` has seen more images, "
        f"`{RANDOM}` none; both are compared with the same MAE. Intervals: <sup>is</sup> test images and seeds drawn "
        "anew, which says of other images and seeds; <sup>i</sup> images alone, where one seed is in common: it says "
        "nothing of other seeds; <sup>s</sup> Student's over seeds, where there are no predictions; none for one seed "
        f"without predictions, or seeds that agree to the last digit. † p < {LEVEL} after Holm's correction for the "
        f"{compared} comparisons of `comparison.csv`, two seeds or more. Share: of what the best oracle gains over "
        f"MAE, where that is {MIN_HEADROOM:.0f} points or more. Costs are of the pretraining, images those of the "
        "reconstruction level, config its hash; empty: not known. `mlomae table comparison --trace` names the runs "
        "behind a cell."
    )


def build_comparison(evidence: Evidence) -> tuple[pd.DataFrame, str]:
    """(frame, Markdown) of the comparison. Errors as `comparison_rows`."""
    rows = comparison_rows(evidence)
    used = {n.line for row in rows for kind in EVIDENCE for n in row[f"published_{kind}"]}
    frame = comparison_frame(rows)
    return frame, comparison_page(frame, evidence.published, used)
