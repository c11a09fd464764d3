"""Operations of every pretraining in the records (`make flops`).

The file holds, for the hash of every pretraining's configuration and in FLOP (multiply and add apart):

- ``total``: of the whole run, with its own batch sizes; the mean over its records where φ started at different times;
- ``lower_step``: one step on θ, and ``upper``: one outer iteration in which φ moves (0 where there is no φ), both with
  ``batch`` images in the batch of every level.

Numbers are integers of 4 significant digits. A hash that the file has is not counted again without ``--again``, but
for configurations with ``levels.warmup_margin``, whose mean changes with every record; those without a record are
removed. What counts and what does not: `benchmarks.cost.flops.count`.
"""

import argparse
import json
from pathlib import Path

from benchmarks.cost.flops.count import begin_of, classes_of, config_of, count_costs, counted_batch, total_flops
from benchmarks.cost.flops.file import Entry, read_flops
from mlomae.common.atomic import write_text
from mlomae.common.errors import DataError, MlomaeError, reason_of, refuse
from mlomae.config.plugins import import_plugins
from mlomae.records import Record, read_records


def rounded(value: float) -> int:
    """To 4 significant digits."""
    return int(float(f"{value:.4g}"))


def count_entry(runs: list[Record]) -> Entry:
    """The entry of one configuration from all its records. Raises DataError, naming the record, if it cannot be."""
    name = runs[0]["name"]
    try:
        config = config_of(runs[0])
        batch = counted_batch(config)
        costs = count_costs(config, classes_of(runs[0]), batch)
        totals = []
        for record in runs:
            name = record["name"]
            totals.append(total_flops(config, costs, begin_of(record, config)))
    except Exception as error:  # options that only an older or newer code takes raise anything
        raise DataError(f"record '{name}' cannot be counted: {reason_of(error)}") from error
    upper = costs.kinds.get("upper")
    return {
        "lower_step": rounded(costs.kinds["between"].lower * batch / config.levels.lower_steps),
        "upper": rounded(upper.of(batch, batch)) if upper else 0,
        "total": rounded(sum(totals) / len(totals)),
        "batch": batch,
    }


def starts_vary(record: Record) -> bool:
    """Whether each run of the configuration finds out by itself when φ starts."""
    levels = record["config"].get("levels")
    return isinstance(levels, dict) and bool(levels.get("warmup_margin"))


def update_flops(records: list[Record], path: Path, again: bool = False) -> list[MlomaeError]:
    """Count what ``path`` lacks (all of it with ``again``), drop what has no record; the errors of what cannot be."""
    before = {} if again else read_flops(path)
    runs: dict[str, list[Record]] = {}
    for record in records:
        if record["task"] == "pretrain":
            runs.setdefault(record["config_hash"], []).append(record)
    entries, errors = {}, []
    for key, group in runs.items():
        if key in before and not starts_vary(group[0]):
            entries[key] = before[key]
            continue
        try:
            entries[key] = count_entry(group)
        except MlomaeError as error:
            errors.append(error)
            continue
        print(f"{key}  {entries[key]['total']:.3e} FLOP  {group[0]['method']}, {group[0]['dataset']}")
    write_text(path, json.dumps(entries, indent=1, sort_keys=True) + "\n")
    return errors


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0, 1 after a line for every configuration that cannot be counted, 2 for other bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost.flops", description="Operations of the pretrainings."
    )
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--out", type=Path, default=Path("results/flops.json"), help="file to bring up to date")
    parser.add_argument("--again", action="store_true", help="count anew what the file has already")
    parser.add_argument("--custom-imports", nargs="+", default=[], metavar="MODULE", help="import plug-ins of the runs")
    arguments = parser.parse_args(argv)
    try:
        import_plugins(arguments.custom_imports)
        errors = update_flops(read_records(arguments.records), arguments.out, arguments.again)
    except MlomaeError as error:
        return refuse(error)
    for each in errors:
        refuse(each)
    return 1 if errors else 0
