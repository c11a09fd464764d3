"""Differences between methods, seed by seed, with an interval: the table to read before calling one of them better.

For every method and each of its references with runs of the same seeds: MAE (same images seen), for learned masks the
masking network frozen at its random initial values (same images), and MAE of the same processor time (more images).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import pandas as pd

from benchmarks.analysis.comparable import BASELINE, METRICS, SAME_TIME, by_config, setting_of
from benchmarks.analysis.statistics import paired_interval
from benchmarks.analysis.tables.markdown import difference_cell, markdown_page
from benchmarks.analysis.tables.table import BEHIND, OWN, RIVAL, formatted, make_frame
from mlomae.records import Record, grouped

FROZEN = "frozen at random"
REFERENCES = (BASELINE, FROZEN, SAME_TIME)
COST_TOLERANCE = 0.15  # relative; runs further apart in processor time are not "same processor time" to each other
_NUMBERS = [f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_low", "_high")]
KEYS = ["dataset", "method", "config_hash", "reference"]
COLUMNS = [*KEYS, "seeds", "images_seen", *_NUMBERS]
Groups = dict[tuple[str, str], list[Record]]


def seed_pairs(runs: list[Record], others: list[Record]) -> list[tuple[Record, Record]]:
    """Runs of the same seed, in the order of ``runs``; a seed that only one of the two has is left out."""
    by_seed = {r["seed"]: r for r in others}
    return [(r, by_seed[r["seed"]]) for r in runs if r["seed"] in by_seed]


def _mean_cpu(runs: list[Record]) -> float:
    return statistics.fmean(r["cpu_s"] for r in runs)


def _references(runs: list[Record], groups: Groups) -> Iterator[tuple[str, list[Record]]]:
    """(name, runs) of what ``runs`` is compared with, among the methods of its setting."""
    method, images = runs[0]["method"], runs[0]["images_seen"]["lower"]
    for reference in REFERENCES:
        if method in (BASELINE, SAME_TIME, reference):
            continue
        if reference == FROZEN and runs[0]["config"].get("mask", {}).get("type") != "learned":
            continue
        for found in (others for (name, _), others in groups.items() if name == reference):
            if reference == SAME_TIME:
                comparable = abs(_mean_cpu(found) / _mean_cpu(runs) - 1.0) <= COST_TOLERANCE
            else:
                comparable = found[0]["images_seen"]["lower"] == images
            if comparable:
                yield reference, found


def difference_rows(records: list[Record]) -> list[dict[str, Any]]:
    """One dict of `COLUMNS` a (method, reference) with at least one seed in common."""
    wanted = [r for r in records if all(m in r["metrics"] for m in METRICS)]
    rows = []
    for alike in grouped(wanted, setting_of).values():
        groups = by_config(alike)
        for (method, config_hash), runs in groups.items():
            for reference, others in _references(runs, groups):
                pairs = seed_pairs(runs, others)
                if not pairs:
                    continue
                row = {"dataset": runs[0]["dataset"], "method": method, "config_hash": config_hash}
                row |= {"reference": reference, "seeds": len(pairs), "images_seen": runs[0]["images_seen"]["lower"]}
                for metric in METRICS:
                    interval = paired_interval([a["metrics"][metric] - b["metrics"][metric] for a, b in pairs])
                    row |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), interval, strict=True))
                row[BEHIND] = {"": [(OWN, [a for a, _ in pairs]), (RIVAL, [b for _, b in pairs])]}
                rows.append(row)
    return rows


def difference_frame(records: list[Record]) -> pd.DataFrame:
    """The differences as text, in percentage points."""
    order = ["dataset", "images_seen", "method", "config_hash", "reference"]
    text = make_frame(difference_rows(records), COLUMNS, order)
    for column in _NUMBERS:
        text[column] = formatted(text[column], "+.2f")
    return text


def difference_page(frame: pd.DataFrame) -> str:
    """The Markdown of `difference_frame`."""
    titles = ["dataset", "method", "config", "against", "seeds", "images seen", *METRICS.values()]
    rows = []
    for row in frame.to_dict("records"):
        cells = [str(row[c]) for c in COLUMNS[:6]]
        for metric in METRICS:
            cells.append(difference_cell(row[metric], row[f"{metric}_low"], row[f"{metric}_high"], row["seeds"]))
        rows.append(cells)
    footnote = (
        "Percentage points of accuracy (frozen encoder, mean of the patch tokens), runs of the same seed paired; "
        "[low, high] is Student's 95 % interval of the mean over seeds, which with two seeds is very wide. An interval "
        f"that holds 0 shows no difference. `{FROZEN}`: the masking network keeps its random initial values; what a "
        f"method gains over it, it gains by learning. `{SAME_TIME}` has seen more images."
    )
    return markdown_page("Differences between methods", titles, rows, footnote)
