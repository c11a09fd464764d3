"""The table of pretraining runs: accuracies of the frozen encoder, what they cost, and how the feedback did."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from benchmarks.analysis.tables.markdown import markdown_page
from benchmarks.analysis.tables.table import BEHIND, OWN, RIVAL, formatted
from mlomae.common.errors import DataError
from mlomae.records import Record, hardware_phrase

ACCURACIES = ("linear_top1_cls", "linear_top1_avg", "knn_top1_cls", "knn_top1_avg")
BASELINES = ("MAE",)  # the method name of random-mask MAE
EQUAL_IMAGES = 0.01  # totals this close (relative) count as equal: batch sizes seldom divide evenly
KEYS = ["dataset", "method", "config_hash"]
COLUMNS = [*KEYS, "seeds", "images_seen", "labelled_seen", "wall_clock_s", "cpu_s", "hardware"]
COLUMNS += [c for key in ACCURACIES for c in (key, f"{key}_sd", f"{key}_vs_mae")]
COLUMNS += ["feedback_accuracy", "feedback_accuracy_sd", "feedback_chance"]


def _runs(records: list[Record]) -> pd.DataFrame:
    """One row a run; ``setting`` is what must agree before two methods may be compared."""
    rows = []
    for r in records:
        data = r["config"].get("data", {})
        images = [{k: v for k, v in (data.get(part) or {}).items() if k != "root"} for part in ("train", "eval")]
        compared = [r["dataset"], r["train_source"], r["eval_source"], r["config"].get("model"), images]
        row = {key: r[key] for key in ("dataset", "method", "config_hash", "seed", "name", "wall_clock_s", "cpu_s")}
        row["images"] = r["images_seen"]["lower"]
        row["labelled"] = r["images_seen"]["head"] + r["images_seen"]["upper"]
        row["hardware"] = hardware_phrase(r)
        row["setting"] = json.dumps(compared, sort_keys=True)
        row["record"] = r
        for key in (*ACCURACIES, "feedback_accuracy", "feedback_chance"):
            row[key] = float(r["metrics"].get(key, "nan"))
        rows.append(row)
    keys = [*KEYS, "seed", "name"]
    frame = pd.DataFrame(rows).sort_values(keys, kind="stable", ignore_index=True)
    twice = frame[frame.duplicated(keys[:4])]
    if len(twice):
        first = twice.iloc[0]
        raise DataError(
            f"two records hold seed {first.seed} of {first.method} on {first.dataset}; remove '{first['name']}'"
        )
    return frame


def _summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a (dataset, method, config_hash): means, sample standard deviations (NaN for one seed), counts."""
    groups = frame.groupby(KEYS, sort=True)
    table = groups.agg(
        seeds=("seed", "size"),
        images_seen=("images", "mean"),
        labelled_seen=("labelled", "mean"),
        wall_clock_s=("wall_clock_s", "mean"),
        cpu_s=("cpu_s", "mean"),
        hardware=("hardware", lambda column: " / ".join(sorted(set(column)))),
        setting=("setting", lambda column: " / ".join(sorted(set(column)))),
        feedback_chance=("feedback_chance", "mean"),
        records=("record", list),
    )
    for key in (*ACCURACIES, "feedback_accuracy"):
        table[key], table[f"{key}_sd"] = groups[key].mean(), groups[key].std(ddof=1)
    table = table.reset_index()
    table[BEHIND] = [{"": [(OWN, row.records)]} for row in table.itertuples()]
    for key in ACCURACIES:
        table[f"{key}_vs_mae"] = [_difference(table, row, key) for _, row in table.iterrows()]
    return table


def _difference(table: pd.DataFrame, row: pd.Series, key: str) -> float:
    """Mean of ``row`` less the best random-mask MAE of the same setting and equal images seen; NaN without one."""
    if row.method in BASELINES:
        return float("nan")
    near = (table.images_seen - row.images_seen).abs() <= EQUAL_IMAGES * row.images_seen
    rivals = table[table.method.isin(BASELINES) & (table.setting == row.setting) & near]
    if rivals[key].notna().any():
        best = rivals.loc[rivals[key].idxmax()]
        row[BEHIND][f"{key}_vs_mae"] = [*row[BEHIND][""], (RIVAL, best.records)]
    return float(row[key] - rivals[key].max())


def pretrain_frame(records: list[Record]) -> pd.DataFrame:
    """Accuracies, differences and chance in percent, times in seconds, as text. DataError for a seed recorded twice."""
    if not records:
        return pd.DataFrame(columns=[*COLUMNS, BEHIND])
    table = _summary(_runs(records))[[*COLUMNS, BEHIND]]
    text = table.copy()
    for column in COLUMNS[4:]:
        if column != "hardware":
            digits = 0 if column.endswith("_seen") else 1 if column.endswith("_s") else 2
            text[column] = formatted(table[column], f".{digits}f")
    return text


def _spread(row: dict[Any, Any], key: str) -> str:
    """Mean ± sd of formatted cells; one seed has no sd and says so."""
    if not row[key]:
        return ""
    return f"{row[key]} (n=1)" if row["seeds"] == 1 else f"{row[key]} ± {row[f'{key}_sd']}"


def pretrain_page(frame: pd.DataFrame) -> str:
    """The Markdown of `pretrain_frame`."""
    shown = {
        "images_seen": "images seen (stage I)",
        "labelled_seen": "labelled images seen (II, III)",
        "wall_clock_s": "wall-clock (s)",
        "cpu_s": "CPU (s)",
    }
    titles = [shown.get(c, c) for c in COLUMNS[:9]]
    titles += [t for key in ACCURACIES for t in (f"{key} (%)", "vs MAE")] + ["feedback accuracy (chance) (%)"]
    rows = []
    for row in frame.to_dict("records"):
        cells = [str(row[c]) for c in COLUMNS[:9]]
        for key in ACCURACIES:
            difference = row[f"{key}_vs_mae"]
            cells += [_spread(row, key), difference if difference[:1] in ("", "-") else f"+{difference}"]
        cells.append(
            _spread(row, "feedback_accuracy") + (f" ({row['feedback_chance']})" if row["feedback_accuracy"] else "")
        )
        rows.append(cells)
    footnote = (
        "Mean ± sample standard deviation over seeds. Images seen count repetitions. `vs MAE`: "
        f"difference of the means to MAE of equal data, model and stage-I images (within {EQUAL_IMAGES:.0%}); "
        "to the best if several fit, empty if none does."
    )
    return markdown_page("Pretraining", titles, rows, footnote)
