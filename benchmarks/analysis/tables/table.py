"""What all result tables share: columns and rows, the records that each cell is made of, a CSV and a Markdown page."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.analysis.comparable import MARGINS, knowing, margin_of
from benchmarks.analysis.data_sets import pretrained_on
from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.references import estimate
from benchmarks.analysis.statistics import verdict
from mlomae.records import Record, hardware_phrase

Row = dict[Any, Any]
SOURCES = "_sources"
"""A column that is not written: {prefix of column names: [(role, records)]}. The longest prefix of a column's name says
which records its cell is made of; "" fits all others and names the row's own records."""
OWN, RIVAL, ORACLE = "row", "compared with", "best oracle"  # roles
_HEADINGS = {
    "config_hash": "config",
    "schedule": "outer iterations",
    "reference": "against",
    "wall_clock_s": "wall-clock (s)",
    "cpu_s": "CPU (s)",
    "pretraining_images_seen": "images seen (pretraining)",
    "pretraining_cpu_s": "pretraining CPU (s)",
    "transfer_cpu_s": "transfer CPU (s)",
}
_NUMERICS_NOTE = (
    "Rows that name their NUMERICS are of an older version of the code, whose results may differ. They are "
    "neither pooled nor compared with the others."
)
Sources = dict[str, list[tuple[str, list[Record]]]]
Pairs = list[tuple[Record, Record]]


@dataclass(frozen=True)
class Column:
    """A column of a table's CSV, and of its page unless ``hidden``.

    Attributes:
        spec: the format of its numbers, "" for texts and for numbers that are formatted already.
        title: its heading on the page, by default `heading` of its name.
        show: a row of texts -> the cell on the page, by default the column's own text.
        key: whether it is one of the columns that together identify a row.
        optional: it is left out of a table none of whose rows has a text for it.
    """

    name: str
    spec: str = ""
    title: str = ""
    show: Callable[[Row], str] | None = None
    key: bool = False
    hidden: bool = False
    optional: bool = False

    @property
    def heading(self) -> str:
        return self.title or heading(self.name)

    def cell(self, row: Row) -> str:
        return self.show(row) if self.show else str(row[self.name])


@dataclass(frozen=True)
class Table:
    """A result table.

    Attributes:
        title: its heading. note: what a reader must know, in Markdown. source: where its numbers come from.
        rows: makes the rows, dicts with the columns and `SOURCES`; other keys are ignored.
        order: the columns that rows are sorted by, the keys by default.
    """

    title: str
    columns: Sequence[Column]
    rows: Callable[[Evidence], list[Row]]
    note: str = ""
    order: Sequence[str] = ()
    source: str = "the run records"

    @property
    def keys(self) -> list[str]:
        return [column.name for column in self.columns if column.key]

    def build(self, evidence: Evidence) -> tuple[pd.DataFrame, str]:
        """(the rows as text, with a column `SOURCES`; their Markdown). The same for any order of the records."""
        rows = self.rows(evidence)
        _name_older_numerics(rows)
        _name_pretraining_data(rows, self.keys)
        used = [column for column in self.columns if not column.optional or any(row[column.name] for row in rows)]
        frame = pd.DataFrame(rows, columns=[*(column.name for column in used), SOURCES])
        frame = frame.sort_values(list(self.order or self.keys), kind="stable", ignore_index=True)
        for column in used:
            if column.spec:
                values = ["" if pd.isna(value) else format(value, column.spec) for value in frame[column.name]]
                frame[column.name] = values
        return frame, self.page(frame, evidence)

    def page(self, frame: pd.DataFrame, evidence: Evidence) -> str:
        """The Markdown of the rows."""
        shown = [column for column in self.columns if not column.hidden and column.name in frame]
        rows = frame.to_dict("records")
        lines = markdown_table([c.heading for c in shown], [[c.cell(row) for c in shown] for row in rows])
        note = f"{self.note} {numerics_note(rows)}".rstrip()
        return "\n".join([*markdown_head(self.title, self.source), *lines, "", note]) + "\n"


def _name_older_numerics(rows: list[Row]) -> None:
    """Add to the configuration of a row the NUMERICS that are not the newest of the table."""
    numbers = [row[SOURCES][""][0][1][0].get("numerics") for row in rows]
    newest: dict[str, int] = {}
    for part, number in (item for known in numbers for item in (known or {}).items()):
        newest[part] = max(number, newest.get(part, number))
    for row, known in zip(rows, numbers, strict=True):
        older = [f"{part} {number}" for part, number in (known or {}).items() if number != newest[part]]
        if older or (known is None and newest):
            named = f" (NUMERICS {', '.join(older) or 'unknown'})"
            row |= {key: f"{row[key]}{named}" for key in ("config_hash", "pretraining_config") if key in row}


def _name_pretraining_data(rows: list[Row], keys: Sequence[str]) -> None:
    """Add to the configuration of rows that are alike otherwise the data that their backbones were pretrained on."""
    alike: dict[tuple[Any, ...], list[tuple[Row, Record]]] = {}
    for row in rows:
        record = row[SOURCES][""][0][1][0]
        alike.setdefault(tuple(row.get(key) for key in keys), []).append((row, record))
    for same in alike.values():
        if len({pretrained_on(record) for _, record in same}) > 1:
            for row, record in same:
                name, digest = record["pretrained"].get("dataset", ""), pretrained_on(record)[:6]
                row["config_hash"] += f" (pretrained on {name} [{digest or 'unknown'}])"


def numerics_note(rows: Iterable[Row]) -> str:
    """What a reader of ``rows`` must know if some of them name their NUMERICS; "" if none does."""
    return _NUMERICS_NOTE if any(" (NUMERICS " in str(row.get("config_hash")) for row in rows) else ""


def protocol_name(row: Row) -> str:
    """What pages call the protocol of a transfer, where its key would be confused with the probe of `evaluate`."""
    known = {"linear": "linear head (SGD/LARS)", "attentive": "attentive probe"}
    return known.get(row["protocol"], str(row["protocol"]))


def heading(column: str) -> str:
    """The heading of a column that has no title of its own."""
    return _HEADINGS.get(column, column.replace("_", " "))


def csv_of(frame: pd.DataFrame) -> str:
    return frame.drop(columns=SOURCES).to_csv(index=False, lineterminator="\n")


def markdown_head(title: str, source: str = "the run records") -> list[str]:
    """The first lines of every page."""
    return [f"# {title}", "", f"Generated by `make tables` from {source}; not edited by hand.", ""]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; bars inside cells are escaped. ``rows`` hold one text per column."""
    lines = [columns, *rows]
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    return [head, "|" + "---|" * len(columns), *body]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table for a terminal: every column is as wide as its longest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def row_of(runs: list[Record], metrics: Iterable[str] = ()) -> Row:
    """What tables show of the runs of one configuration: its names, mean costs and ``metrics``, and its `SOURCES`."""
    first = runs[0]
    transfer = first["task"] != "pretrain"
    row: Row = {name: first[name] for name in ("dataset", "method", "config_hash")}
    row["recipe"] = first["name"] if transfer else ""
    row["protocol"] = first["config"].get("protocol", "finetune") if transfer else "frozen"
    if first["config"].get("pooling") == "attentive":
        row["protocol"] = "attentive"
    row |= {"seeds": len(runs), "images_seen": statistics.fmean(r["images_seen"]["lower"] for r in runs)}
    row |= {cost: statistics.fmean(r[cost] for r in runs) for cost in ("wall_clock_s", "cpu_s")}
    row |= {"hardware": " / ".join(sorted({hardware_phrase(r) for r in runs})), "copies": copies_text(runs)}
    for metric in metrics:
        row |= mean_and_sd(runs, metric)
    return {**row, SOURCES: {"": [(OWN, runs)]}}


def mean_and_sd(runs: list[Record], metric: str) -> dict[str, float]:
    """{metric: mean, metric_sd: sample standard deviation} of the runs that have it; NaN without one, or a second."""
    values = [r["metrics"][metric] for r in runs if metric in r["metrics"]]
    mean = statistics.fmean(values) if values else math.nan
    return {metric: mean, f"{metric}_sd": statistics.stdev(values) if values[1:] else math.nan}


VERDICTS = (
    "Better, worse: the 95 % interval leaves out 0. Equal: the 90 % interval lies within the margin, "
    f"{MARGINS['linear']:g} points for a linear probe, {MARGINS['knn']:g} for k-NN, fine-tuning and mIoU (fixed before "
    "the runs on photographs and in bfloat16, after all others). Not settled: neither; so many seeds would settle it "
    "four times in five, if mean and spread of these are the truth."
)


def difference_of(pairs: Pairs, metric: str, column: str, evidence: Evidence) -> Row:
    """``column`` with the mean difference within the pairs of runs that know ``metric``, of which more is better, those
    of its interval, their number (``_seeds``) and what it shows; nothing without such pairs."""
    known = knowing(pairs, metric)
    if not known:
        return {f"{column}_verdict": "", f"{column}_seeds": 0}
    found = estimate(known, metric, evidence)
    said = verdict(found, margin_of(known[0][0], metric))
    row = {column: found.mean, f"{column}_low": found.low, f"{column}_high": found.high}
    return row | {f"{column}_verdict": said, f"{column}_seeds": len(known)}


def pair_sources(pairs: Pairs) -> list[tuple[str, list[Record]]]:
    """What the `SOURCES` of a difference are: the first and the second runs of its pairs."""
    return [(OWN, [a for a, _ in pairs]), (RIVAL, [b for _, b in pairs])]


def near_copies_allowed(record: Record) -> bool:
    """Whether the run was told to accept evaluation images of which training has near copies."""
    return bool(record["config"].get("data", {}).get("allow_near_copies"))


def copies_text(runs: list[Record]) -> str:
    """How many evaluation images the data of ``runs`` have as copies, equal or near, by what they were compared with;
    "" for records of versions that did not compare."""
    found: dict[str, None] = {}
    for part, counts in ((part, counts) for r in runs for part, counts in r.get("copies", {}).items()):
        some = (
            f"{counts['equal']} equal, {counts['near']} near of {counts['compared']}" if counts != "unknown" else counts
        )
        found[f"{part}: {some}"] = None
    return "; ".join([*(["near ones allowed"] if near_copies_allowed(runs[0]) else []), *found])


COPIES = Column("copies", title="test images that training has too", optional=True)


def keys(*names: str) -> list[Column]:
    return [Column(name, key=True) for name in names]


def spread_text(row: Row, metric: str) -> str:
    """A mean with its standard deviation; one seed has none and says so."""
    if not row[metric]:
        return ""
    return f"{row[metric]} (n=1)" if row["seeds"] == 1 else f"{row[metric]} ± {row[f'{metric}_sd']}"


def spread(metric: str, title: str) -> list[Column]:
    """A mean and its standard deviation, one cell of the page."""
    mean = Column(metric, ".2f", title, lambda row: spread_text(row, metric))
    return [mean, Column(f"{metric}_sd", ".2f", hidden=True)]


def signed(name: str, title: str) -> Column:
    """A difference, with a plus sign on the page only."""
    return Column(name, ".2f", title, lambda row: row[name] if row[name][:1] in ("", "-") else f"+{row[name]}")


def interval(name: str, title: str) -> list[Column]:
    """A difference of `difference_of` with its interval as one cell of the page; without one, why: one pair of runs, or
    pairs that agree to the last digit."""

    def show(row: Row) -> str:
        mean, low, high, pairs = row[name], row[f"{name}_low"], row[f"{name}_high"], row[f"{name}_seeds"]
        if low:
            return f"{mean} [{low}, {high}] (n={pairs}), {row[f'{name}_verdict']}"
        return f"{mean} ({'one seed' if int(pairs) == 1 else f'n={pairs}, all the same: no interval'})" if mean else ""

    ends = [Column(f"{name}_{end}", "+.2f", hidden=True) for end in ("low", "high")]
    more = (Column(f"{name}_{what}", hidden=True) for what in ("verdict", "seeds"))
    return [Column(name, "+.2f", title, show), *ends, *more]
