"""Result tables from run records: `python -m benchmarks.tables [--records results/runs] [--out results]`.

The same records give the same bytes: rows are sorted, numbers formatted here, lines end in LF. A record's ``task``
selects its table; `TABLES` has one builder a task.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.difference_table import difference_table
from benchmarks.headroom_table import headroom_table
from benchmarks.markdown import markdown_page
from benchmarks.records import Record, hardware_phrase, read_records
from benchmarks.speed_table import speed_table
from benchmarks.transfer.table import CLASSIFICATION, DETECTION, SEGMENTATION, transfer_table
from mlomae.atomic import replacing
from mlomae.errors import DataError, MlomaeError, refuse

ACCURACIES = ("linear_top1_cls", "linear_top1_avg", "knn_top1_cls", "knn_top1_avg")
BASELINES = ("MAE",)  # the method name of random-mask MAE
EQUAL_IMAGES = 0.01  # totals this close (relative) count as equal: batch sizes seldom divide evenly


def _number(value: float, digits: int = 2) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def _frame(records: list[Record]) -> pd.DataFrame:
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
        for key in (*ACCURACIES, "feedback_accuracy", "feedback_chance"):
            row[key] = float(r["metrics"].get(key, "nan"))
        rows.append(row)
    keys = ["dataset", "method", "config_hash", "seed", "name"]
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
    groups = frame.groupby(["dataset", "method", "config_hash"], sort=True)
    table = groups.agg(
        seeds=("seed", "size"),
        images_seen=("images", "mean"),
        labelled_seen=("labelled", "mean"),
        wall_clock_s=("wall_clock_s", "mean"),
        cpu_s=("cpu_s", "mean"),
        hardware=("hardware", lambda column: " / ".join(sorted(set(column)))),
        setting=("setting", lambda column: " / ".join(sorted(set(column)))),
        feedback_chance=("feedback_chance", "mean"),
    )
    for key in (*ACCURACIES, "feedback_accuracy"):
        table[key], table[f"{key}_sd"] = groups[key].mean(), groups[key].std(ddof=1)
    table = table.reset_index()
    for key in ACCURACIES:
        table[f"{key}_vs_mae"] = [_difference(table, row, key) for _, row in table.iterrows()]
    return table


def _difference(table: pd.DataFrame, row: pd.Series, key: str) -> float:
    """Mean of ``row`` less the best random-mask MAE of the same setting and equal images seen; NaN without one."""
    if row.method in BASELINES:
        return float("nan")
    near = (table.images_seen - row.images_seen).abs() <= EQUAL_IMAGES * row.images_seen
    rivals = table[table.method.isin(BASELINES) & (table.setting == row.setting) & near]
    return float(row[key] - rivals[key].max())


def _spread(row: dict[Any, Any], key: str) -> str:
    """Mean ± sd of formatted cells; one seed has no sd and says so."""
    if not row[key]:
        return ""
    return f"{row[key]} (n=1)" if row["seeds"] == 1 else f"{row[key]} ± {row[f'{key}_sd']}"


def pretrain_table(records: list[Record]) -> tuple[str, str]:
    """(CSV, Markdown) of the pretraining runs; accuracies, differences and chance in percent, times in seconds."""
    accuracies = [c for key in ACCURACIES for c in (key, f"{key}_sd", f"{key}_vs_mae")]
    columns = ["dataset", "method", "config_hash", "seeds", "images_seen", "labelled_seen"]
    columns += ["wall_clock_s", "cpu_s", "hardware"]
    columns += [*accuracies, "feedback_accuracy", "feedback_accuracy_sd", "feedback_chance"]
    table = _summary(_frame(records))[columns] if records else pd.DataFrame(columns=columns)
    text = table.copy()
    for column in columns[4:]:
        if column != "hardware":
            digits = 0 if column.endswith("_seen") else 1 if column.endswith("_s") else 2
            text[column] = [_number(v, digits) for v in table[column]]
    csv = text.to_csv(index=False, lineterminator="\n")

    shown = {
        "images_seen": "images seen (stage I)",
        "labelled_seen": "labelled images seen (II, III)",
        "wall_clock_s": "wall-clock (s)",
        "cpu_s": "CPU (s)",
    }
    titles = [shown.get(c, c) for c in columns[:9]]
    titles += [t for key in ACCURACIES for t in (f"{key} (%)", "vs MAE")] + ["feedback accuracy (chance) (%)"]
    rows = []
    for row in text.to_dict("records"):
        cells = [str(row[c]) for c in columns[:9]]
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
    return csv, markdown_page("Pretraining", titles, rows, footnote)


TABLES: dict[str, Callable[[list[Record]], tuple[str, str]]] = {
    "pretrain": pretrain_table,
    "speed": speed_table,
    "classification": partial(transfer_table, CLASSIFICATION),
    "segmentation": partial(transfer_table, SEGMENTATION),
    "detection": partial(transfer_table, DETECTION),
}
# further tables of the same records: file name -> (task, builder)
VIEWS = {"headroom": ("pretrain", headroom_table), "differences": ("pretrain", difference_table)}


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def render_tables(records_folder: Path) -> dict[str, str]:
    """File name -> content of ``<task>.csv`` and ``<task>.md`` for every task, and of the further tables.

    Raises DataError for a demo record, an unknown task, a seed recorded twice, or a record that cannot be read.
    """
    records = read_records(records_folder)
    for r in records:
        if r["demo"]:
            raise DataError(
                f"record '{r['name']}' is a demo run; move it out of '{records_folder}', demos are not results"
            )
        if r["task"] not in TABLES:
            raise DataError(f"record '{r['name']}' is of task '{r['task']}'; tables exist for {', '.join(TABLES)}")
    contents: dict[str, str] = {}
    views = {task: (task, builder) for task, builder in TABLES.items()} | VIEWS
    for name, (task, builder) in views.items():
        csv, markdown = builder([r for r in records if r["task"] == task])
        contents |= {f"{name}.csv": csv, f"{name}.md": markdown}
    return contents


def build_tables(records_folder: Path, out: Path) -> list[Path]:
    """Write the tables, all after all could be rendered; returns the files written. Errors as `render_tables`."""
    contents = render_tables(records_folder)
    for name, text in contents.items():
        _write(out / name, text)
    return [out / name for name in contents]


def check_tables(records_folder: Path, out: Path) -> None:
    """Raise DataError if a table on disk is not what its records give: edited by hand, or not regenerated."""
    for name, text in render_tables(records_folder).items():
        path = out / name
        if not path.is_file() or path.read_bytes() != text.encode():
            raise DataError(f"table '{path}' is not what the records give; run `make tables` and do not edit tables")


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0, or 2 after one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description="Regenerate the result tables.")
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the tables")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is not up to date")
    arguments = parser.parse_args(argv)
    try:
        if arguments.check:
            check_tables(arguments.records, arguments.out)
            return 0
        for path in build_tables(arguments.records, arguments.out):
            print(path)
    except MlomaeError as error:
        return refuse(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
