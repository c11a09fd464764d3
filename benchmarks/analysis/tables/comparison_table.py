"""The comparison of all methods on all tasks: a tidy CSV, and a page with a wide table per pretraining setting."""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

import pandas as pd

from benchmarks.analysis.comparable import BASELINE, SAME_TIME, encoder_of
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.published import COLUMNS, EVIDENCE
from benchmarks.analysis.references import MIN_HEADROOM
from benchmarks.analysis.tables.comparison import COMPARED, COSTS, ENOUGH, MEASURED, SECTION, comparison_rows
from benchmarks.analysis.tables.table import (
    SOURCES,
    VERDICTS,
    Column,
    Row,
    Table,
    keys,
    markdown_head,
    markdown_table,
    near_copies_allowed,
    numerics_note,
    protocol_name,
)
from mlomae.common.errors import DataError
from mlomae.records import RANDOM, grouped

LEVEL = 0.05  # of p after Holm's correction, below which a difference is marked
_METRICS = {metric.name: metric for metrics in COMPARED.values() for metric in metrics}
_MARKS = {"images and seeds": "<sup>is</sup>", "images": "<sup>i</sup>", "seeds": "<sup>s</sup>"}  # what was resampled
_FIRST = (BASELINE, SAME_TIME, RANDOM)
_METHOD = ["method", "pretraining_config"]
_NONE_LINES_UP = (
    "No published number is comparable with a run above: method, backbone (ViT-B, L or H at 224 pixels, pretrained "
    "on all of ImageNet), data set (all of it) and protocol would have to be the same."
)
_PUBLISHED = (
    "Numbers that others report, from `published.csv`; none of them was measured here. Primary: from the authors of "
    "the method or of a reproduction; secondary: from a table of another paper."
)
# the marks around the comparison in docs/results.md
BEGIN, END = "<!-- comparison: written by `make tables` -->", "<!-- end of the comparison -->"
_SHORT_LEGEND = (
    "Percent, mean ± sample standard deviation over seeds (their number). † differs from MAE on the "
    f"same number of images, p < 0.05 after Holm's correction, {ENOUGH} seeds or more. Cost: processor time of "
    "pretraining, relative to MAE's."
)
Key = tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """One line of a cell: ``text`` shows ``column`` of ``row``; ``mark`` follows it."""

    text: str
    row: Row
    column: str
    mark: str = ""


def marked(row: Row) -> bool:
    """Whether the difference to MAE is significant after Holm's correction, which few seeds have none of."""
    return bool(row["p_holm"]) and float(row["p_holm"]) < LEVEL


def spread(row: Row) -> str:
    """Mean, standard deviation over seeds, and their number."""
    return f"{row['mean']} ± {row['sd']} ({row['seeds']})" if row["sd"] else f"{row['mean']} ({row['seeds']})"


def _measured(row: Row) -> list[Shown]:
    """Mean, spread and count; below, the difference to MAE and the captured share of the headroom."""
    lines = [Shown(spread(row), row, "mean")]
    if row["difference"]:
        interval = f" [{row['low']}, {row['high']}]" if row["low"] else ""
        text = f"{row['difference']}{'†' if marked(row) else ''}{interval}"
        lines.append(Shown(text, row, "difference", _MARKS[row["interval"]] if interval else ""))
        lines += [Shown(row["verdict"], row, "verdict")] if row["verdict"] else []
    if row["share_of_headroom"]:
        lines.append(Shown(f"share {row['share_of_headroom']}", row, "share_of_headroom"))
    return lines


def _column_title(row: Row) -> str:
    """What a column measures."""
    metric = _METRICS[row["metric"]]
    title = f"{metric.title} ({metric.unit}), {row['dataset']}{_allowance(row)}"
    return f"{title}<br>{row['recipe']}, {protocol_name(row)}" if row["recipe"] else title


def _allowance(row: Row) -> str:
    """The mark of runs whose training may have near copies of test images."""
    return "<br>near copies allowed" if near_copies_allowed(row[SOURCES][""][0][1][0]) else ""


def columns_of(rows: list[Row]) -> list[tuple[str, dict[Key, Row]]]:
    """The columns of a section in order, a task, data set and metric each: (title, rows by `methods_of`'s keys).

    Titles that would be equal end with the hash of the transfer's setting.
    """
    columns = sorted(grouped(rows, itemgetter(*MEASURED)).items(), key=lambda item: (item[0][0] != "pretrain", item[0]))
    titles = [_column_title(found[0]) for _, found in columns]
    named = []
    for title, (_, found) in zip(titles, columns, strict=True):
        name = f"{title}<br>setting {found[0]['transfer_setting']}" if titles.count(title) > 1 else title
        named.append((name, {key: row for key, (row, *_) in grouped(found, itemgetter(*_METHOD)).items()}))
    return named


def methods_of(rows: list[Row]) -> dict[Key, list[Row]]:
    """(method, config of its pretraining) -> rows, in the order of a section's lines: references first."""
    methods = grouped(rows, itemgetter(*_METHOD))
    order = sorted(methods, key=lambda key: (_FIRST.index(key[0]) if key[0] in _FIRST else len(_FIRST), key))
    return {key: methods[key] for key in order}


def cost_row(rows: list[Row], cost: str) -> Row:
    """Of a method's rows the one with most seeds that knows a cost of ``COSTS``: a task may lack some seeds."""
    return max(rows, key=lambda row: (bool(row[f"pretraining_{cost}"]), int(row["seeds"])))


def wide(rows: list[Row]) -> tuple[list[str], dict[Key, list[list[Shown]]]]:
    """One table of a section: titles, and (method, config) -> its cells.

    The costs of the pretraining come first, then one column for each task, data set and metric, each followed by the
    published numbers that are comparable with it.
    """
    columns: list[tuple[str, dict[Key, list[Shown]]]] = []
    for name, by_method in columns_of(rows):
        columns.append((name, {key: _measured(row) for key, row in by_method.items()}))
        for kind in EVIDENCE:
            column = f"published_{kind}"
            numbers = {key: [Shown(row[column], row, column)] for key, row in by_method.items() if row[column]}
            columns += [(f"{name}<br>published ({kind})", numbers)] if numbers else []
    lines = {}
    for key, found in methods_of(rows).items():
        costs = [(cost_row(found, cost), f"pretraining_{cost}") for cost in COSTS]
        cells = [[Shown(row[column], row, column)] for row, column in costs]
        lines[key] = cells + [cells_of.get(key, []) for _, cells_of in columns]
    return [*COSTS.values(), *(name for name, _ in columns)], lines


def sections(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows by pretraining setting: sorted by data set, then the one with most rows first; unknown weights last."""
    groups = grouped(rows, itemgetter(*SECTION)).items()
    return [found for _, found in sorted(groups, key=lambda item: (not item[0][0], item[0][0], -len(item[1]), item[0]))]


def section_title(row: Row) -> str:
    """What a section's backbones were pretrained on."""
    dataset, setting = row["pretraining_dataset"], row["pretraining_setting"]
    return f"Pretrained on {dataset}" + (f", setting {setting}" if setting else "") if dataset else "Other weights"


def section_note(rows: list[Row]) -> str:
    """The images and the encoder of a section's pretrainings."""
    if not rows[0]["pretraining_dataset"]:
        return "What they were pretrained on is not on record."
    probes = next((row for row in rows if row["task"] == "pretrain"), None)
    if probes is None:
        return "The pretraining is not on record."
    record = probes[SOURCES][""][0][1][0]
    model = ", ".join(f"{k} {v}" for k, v in sorted(encoder_of(record).items()) if v is not None)
    return f"{record['train_source']}; {model}."


def legend(rows: list[Row]) -> str:
    """What one needs to read the comparison of ``rows``, in Markdown."""
    compared = sum(bool(row["p_holm"]) for row in rows)
    text = (
        "Mean ± sample standard deviation over seeds (their number). Beneath: difference in percentage points to MAE "
        f"on the same number of images, runs of the same seed paired, with a 95 % interval. `{SAME_TIME}` has seen "
        f"more images, `{RANDOM}` none; both are compared with the same MAE. Intervals: <sup>is</sup> test images and "
        "seeds resampled, so that it speaks for other images and seeds; <sup>i</sup> images only, where there is one "
        "common seed: it says nothing about other seeds; <sup>s</sup> Student's over seeds, where there are no "
        "predictions; none for one seed without predictions, or seeds that agree to the last digit. † "
        f"p < {LEVEL} after Holm's correction for the {compared} comparisons of `comparison.csv` of {ENOUGH} seeds or "
        "more; fewer that agree by chance make p far too small. "
        f"Share: of what the best oracle gains over MAE, where that is {MIN_HEADROOM:.0f} points or more. Costs are "
        "those of pretraining, images those of the reconstruction level, config its hash; empty: not known. "
        f"`mlomae table comparison --trace` names the runs behind a cell. {VERDICTS}"
    )
    return f"{text} {numerics_note(rows)}".rstrip()


class ComparisonTable(Table):
    """Its page has a wide table for each section, and the published numbers that are comparable with none of ours."""

    def page(self, frame: pd.DataFrame, evidence: Evidence) -> str:
        rows = frame.to_dict("records")
        lines = [*markdown_head(self.title), legend(rows), ""]
        for found in sections(rows):
            titles, table = wide(found)
            cells = (
                [*key, *("<br>".join(line.text + line.mark for line in cell) for cell in cells)]
                for key, cells in table.items()
            )
            lines += [f"## {section_title(found[0])}", "", section_note(found), ""]
            lines += [*markdown_table(["method", "config", *titles], cells), ""]
        cited = {text for row in rows for kind in EVIDENCE for text, _ in row[SOURCES][f"published_{kind}"]}
        left = [number for number in evidence.published if number.citation not in cited]
        lines += [] if cited else [_NONE_LINES_UP, ""]
        lines += ["## Published", "", _PUBLISHED, ""]
        titles = [column.replace("pretrain_", "pretraining ") for column in COLUMNS]
        return "\n".join([*lines, *markdown_table(titles, [number.cells for number in left])]) + "\n"


TABLE = ComparisonTable(
    title="Comparison",
    columns=[
        *keys(*SECTION, *MEASURED, "method", "config_hash"),
        *map(Column, ("pretraining_config", "seeds")),
        *(Column(name, ".2f") for name in ("mean", "sd")),
        *(Column(name, "+.2f") for name in ("difference", "low", "high")),
        *(Column(name, ".3g") for name in ("p", "p_holm")),
        Column("interval"),
        Column("pairs", ".0f"),
        Column("verdict"),
        Column("share_of_headroom", ".2f"),
        Column("pretraining_images_seen", ".0f"),
        *(Column(name, ".1f") for name in ("pretraining_wall_clock_s", "pretraining_cpu_s")),
        Column("pretraining_flops", ".3g"),
        *(Column(f"published_{kind}") for kind in EVIDENCE),
    ],
    rows=comparison_rows,
)


# --- docs/results.md: methods whose backbones were transferred, one number per task ----------------------------------


def short_table(frame: pd.DataFrame) -> str:
    """Markdown of every setting with transferred backbones, from the frame of the comparison; "" without any.

    The cost is the processor time of a method's pretraining relative to that of MAE's first configuration.
    """
    parts = []
    for rows in sections(frame.to_dict("records")):
        dataset, methods = rows[0]["pretraining_dataset"], methods_of(rows)
        transferred = [key for key, found in methods.items() if any(row["task"] != "pretrain" for row in found)]
        if not dataset or not transferred:
            continue
        cpu_s = {key: cost_row(found, "cpu_s")["pretraining_cpu_s"] for key, found in methods.items()}
        first = next(iter(methods))
        mae = cpu_s[first] if first[0] == BASELINE else ""
        columns = [by_method for _, by_method in columns_of(rows) if len(by_method.keys() & transferred) > 1]
        heads = [next(iter(by_method.values())) for by_method in columns]
        titles = [
            "<br>".join([row["dataset"], protocol_name(row), _METRICS[row["metric"]].title]) + _allowance(row)
            for row in heads
        ]
        lines = []
        for key in transferred:
            found = [by_method.get(key) for by_method in columns]
            cells = [f"{spread(row)}{' †' if marked(row) else ''}" if row else "" for row in found]
            cost = f"{float(cpu_s[key]) / float(mae):.1f}" if cpu_s[key] and mae else ""
            lines.append([key[0], cost, *cells])
        parts += [f"Pretrained on {dataset}:", "", *markdown_table(["method", "cost", *titles], lines), ""]
    return "\n".join([*parts, _SHORT_LEGEND, ""]) if parts else ""


def filled(text: str, table: str, name: str) -> str:
    """``text`` with ``table`` between its marks. Raises DataError, naming the file, unless it has both, once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"'{name}' must hold the lines '{BEGIN}' and '{END}', once and in this order; put them in")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table}{END}{rest.split(END)[1]}"
