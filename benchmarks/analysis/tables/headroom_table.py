"""The share of the oracle's headroom that a method captures, from pretraining records.

    share = (method − MAE) / (best oracle − MAE)

MAE has random masks; "best" is the oracle of highest mean accuracy, over its biases and weights; all three means are of
the seeds they have in common. All runs of a comparison agree on data, splits, model, outer iterations and batch sizes:
0 is no better than random masks, 1 as good as knowing the objects, and on a data set without headroom no method can be
told from another.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from benchmarks.analysis.comparable import BASELINE, METRICS, SAME_TIME, by_config, is_oracle, setting_of
from benchmarks.analysis.tables.markdown import markdown_page
from benchmarks.analysis.tables.table import BEHIND, ORACLE, OWN, RIVAL, formatted, make_frame
from mlomae.records import Record, grouped

MIN_HEADROOM = 3.0  # percentage points; below it a share is noise over noise and is not given
NUMBERS = [f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_sd", "_vs_mae", "_share")]
KEYS = ["dataset", "schedule", "method", "config_hash"]
COLUMNS = [*KEYS, "seeds", "images_seen", "cpu_s", *NUMBERS]


def comparisons(records: list[Record]) -> Iterator[tuple[list[Record], list[Record]]]:
    """(runs of equal images seen with oracle and baseline among them, all runs of the setting), in a stable order."""
    for alike in grouped(records, setting_of).values():
        for images in sorted({r["images_seen"]["lower"] for r in alike if is_oracle(r)}):
            group = [r for r in alike if r["images_seen"]["lower"] == images]
            if any(r["method"] == BASELINE for r in group):
                yield group, alike


def _mean(runs: list[Record], metric: str) -> float:
    values = [r["metrics"][metric] for r in runs]
    return sum(values) / len(values)


def _measured(record: Record) -> bool:
    return all(metric in record["metrics"] for metric in METRICS)


def _same_seeds(runs: list[Record], seeds: set[int]) -> list[Record]:
    return [r for r in runs if r["seed"] in seeds]


def best_oracle(oracles: Sequence[list[Record]], metric: str, seeds: set[int]) -> list[Record]:
    """The runs with ``seeds`` of the oracle of the highest mean of ``metric`` over them; empty if none has all."""
    paired = [_same_seeds(found, seeds) for found in oracles]
    return max((o for o in paired if len(o) == len(seeds)), key=lambda found: _mean(found, metric), default=[])


def captured(
    runs: list[Record], baseline: list[Record], oracles: Sequence[list[Record]], metric: str
) -> tuple[float, float, list[Record]]:
    """(gain over MAE, share of the headroom, the best oracle's runs) over the seeds in common.

    ``oracles``: the runs of each. NaN where there is no seed in common, no oracle with all of them, or no headroom.
    """
    seeds = {r["seed"] for r in runs} & {r["seed"] for r in baseline}
    if not seeds:
        return math.nan, math.nan, []
    floor, best = _mean(_same_seeds(baseline, seeds), metric), best_oracle(oracles, metric, seeds)
    gain = _mean(_same_seeds(runs, seeds), metric) - floor
    room = _mean(best, metric) - floor if best else 0.0
    return gain, gain / room if room >= MIN_HEADROOM else math.nan, best


def headroom_rows(records: list[Record]) -> list[dict[str, Any]]:
    """One dict of `COLUMNS` a (comparison, method, configuration); NaN where a number does not exist.

    Runs of "MAE, same processor time" are listed in every comparison of their setting: they have seen more images.
    """
    rows = []
    for group, alike in comparisons(records):
        wanted, images = [r for r in group if _measured(r)], group[0]["images_seen"]["lower"]
        others = (r for r in alike if r["images_seen"]["lower"] != images)
        longer = [r for r in others if r["method"] == SAME_TIME and _measured(r)]
        baseline = [r for r in wanted if r["method"] == BASELINE]
        oracles = list(by_config([r for r in wanted if is_oracle(r)]).values())
        if not baseline or not oracles:
            continue
        for (method, config_hash), runs in by_config(wanted + longer).items():
            first = runs[0]
            row: dict[str, Any] = {"dataset": first["dataset"], "method": method, "config_hash": config_hash}
            row |= {"schedule": group[0]["outer_iterations"], "seeds": len(runs)}
            row |= {"images_seen": first["images_seen"]["lower"], "cpu_s": sum(r["cpu_s"] for r in runs) / len(runs)}
            behind = {"": [(OWN, runs)]}
            for metric in METRICS:
                values = [r["metrics"][metric] for r in runs]
                row[metric] = _mean(runs, metric)
                row[f"{metric}_sd"] = statistics.stdev(values) if values[1:] else math.nan
                rivals = baseline if method != BASELINE else []
                row[f"{metric}_vs_mae"], row[f"{metric}_share"], best = captured(runs, rivals, oracles, metric)
                behind[f"{metric}_vs_mae"] = [(OWN, runs), (RIVAL, rivals)]
                behind[f"{metric}_share"] = [(OWN, runs), (RIVAL, rivals), (ORACLE, best)]
            rows.append(row | {BEHIND: behind})
    return rows


def headroom_frame(records: list[Record]) -> pd.DataFrame:
    """The comparisons that have an oracle, as text; accuracies in percent, shares as fractions."""
    order = ["dataset", "schedule", "knn_top1_avg", "config_hash"]
    text = make_frame(headroom_rows(records), COLUMNS, order)
    for column in NUMBERS:
        text[column] = formatted(text[column], ".2f")
    text["cpu_s"] = formatted(text["cpu_s"], ".0f")
    return text


def headroom_page(frame: pd.DataFrame) -> str:
    """The Markdown of `headroom_frame`."""
    titles = ["dataset", "outer iterations", "method", "config", "seeds", "images seen", "CPU (s)"]
    titles += [t for name in METRICS.values() for t in (f"{name} (%)", "vs MAE", "share of headroom")]
    rows = []
    for row in frame.to_dict("records"):
        cells = [str(row[c]) for c in COLUMNS[:7]]
        for metric in METRICS:
            spread = "(n=1)" if row["seeds"] == 1 else f"± {row[f'{metric}_sd']}"
            difference = row[f"{metric}_vs_mae"]
            sign = "" if difference[:1] in ("", "-") else "+"
            cells += [f"{row[metric]} {spread}", f"{sign}{difference}", row[f"{metric}_share"]]
        rows.append(cells)
    footnote = (
        "Share = (method - MAE) / (best oracle - MAE), of means over the seeds that the three have in common; mean ± "
        "sample standard deviation; frozen encoder, mean of the patch tokens. The best oracle has share 1; no share is "
        f"given where the headroom is below {MIN_HEADROOM:.0f} points. `{SAME_TIME}` has seen more images: the rival "
        "at equal cost."
    )
    return markdown_page("Headroom", titles, rows, footnote)
