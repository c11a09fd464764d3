"""Random, oracle and learned masks on the same images: `python -m benchmarks.headroom GRID [--seeds 0 1] [--jobs 2]`.

GRID is a file of configs/headroom/: the rows to run (method, pretraining config, overrides) and, with ``same_time``,
the row whose processor time one more run of the baseline is given. A run whose record exists is not repeated, one that
was interrupted goes on from its checkpoint. Runs take one thread each, so that processor seconds compare.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from benchmarks.difference_table import difference_table
from benchmarks.headroom_table import BASELINE, SAME_TIME, headroom_table, is_oracle
from benchmarks.process import ROOT, last_line, start
from benchmarks.records import Record, config_hash, read_records, slug, strip_paths
from benchmarks.tables import pretrain_table
from mlomae.config import PretrainConfig, load_config
from mlomae.errors import ConfigError, MlomaeError, refuse


@dataclass(frozen=True)
class Row:
    """One method: a pretraining config and what it changes in it."""

    method: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """``name`` names runs and records; ``options`` apply to every row; ``same_time`` is a method among the rows."""

    name: str
    rows: list[Row]
    options: dict[str, Any]
    same_time: str | None = None


@dataclass(frozen=True)
class Run:
    """A row with a seed, resolved."""

    config_path: Path
    options: dict[str, Any]
    config: PretrainConfig

    @property
    def label(self) -> str:
        return f"{self.config.name}_seed{self.config.seed}"


def load_grid(path: Path) -> Grid:
    """Read a grid file; ConfigError names what is wrong with it."""
    if not path.is_file():
        raise ConfigError(f"grid '{path}' does not exist; see configs/headroom/ for the ones that ship")
    try:
        values = Config.fromfile(str(path)).to_dict()
        rows = [Row(**row) for row in values["rows"]]
        grid = Grid(values["name"], rows, values.get("options", {}), values.get("same_time"))
    except (KeyError, TypeError) as error:
        raise ConfigError(f"grid '{path}' is incomplete ({error}); a grid has name, rows (method, config)") from error
    methods = [row.method for row in rows]
    if BASELINE not in methods:
        raise ConfigError(f"grid '{path}' has no row of method '{BASELINE}'; nothing to compare with")
    if len({slug(method) for method in methods}) < len(methods):
        raise ConfigError(f"grid '{path}' names a method twice (signs do not count); give every row a name of its own")
    if grid.same_time is not None and grid.same_time not in methods:
        raise ConfigError(f"grid '{path}': same_time='{grid.same_time}' is none of its methods")
    return grid


def resolve(grid: Grid, row: Row, seed: int, data: str | None) -> Run:
    """The run of ``row`` with ``seed``; ``data`` is the root of the training and evaluation sets."""
    options = {**grid.options, **row.options}
    options |= {"name": f"{grid.name}_{slug(row.method)}", "method": row.method, "seed": seed}
    if data:
        options |= {"data.train.root": data, "data.eval.root": data}
    path = ROOT / row.config
    return Run(path, options, load_config(path, options))


def recorded(run: Run, records: Path) -> Record | None:
    """The record of ``run`` if it has been made; ConfigError if its place is taken by another configuration."""
    path = records / f"{run.label}.json"
    if not path.is_file():
        return None
    record = next(r for r in read_records(records) if (r["name"], r["seed"]) == (run.config.name, run.config.seed))
    if record["config_hash"] != config_hash(strip_paths(run.config.to_dict())):
        raise ConfigError(f"'{path.name}' records another configuration of '{run.label}'; move it away to run anew")
    return record


def execute(run: Run, records: Path, work: Path) -> Record | None:
    """Run in a process of its own, log beside the checkpoints; None, and a line on standard error, if it failed."""
    found = recorded(run, records)
    if found is not None:
        print(f"{run.label}: recorded", flush=True)
        return found
    folder = work / run.label
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlomae.cli", "pretrain", str(run.config_path), "--work-dir", str(folder)]
    command += ["--resume", "--records", str(records), "--cfg-options"]
    command += [f"{key}={value!r}" for key, value in run.options.items()]
    print(f"{run.label}: {run.config.train.outer_iterations} outer iterations, log in {folder}/log.txt", flush=True)
    log = folder / "log.txt"
    if status := start(command, log):
        print(f"{run.label}: failed with status {status}: {last_line(log)}", file=sys.stderr, flush=True)
        return None
    return recorded(run, records)


def same_time_row(grid: Grid, found: dict[tuple[str, int], Record], records: Path) -> Row:
    """The baseline, as many iterations long as fit the processor time of ``grid.same_time``, mean over seeds.

    A length that is on record stays: runs of further seeds must be of the same configuration.
    """
    assert grid.same_time is not None
    baseline = next(row for row in grid.rows if row.method == BASELINE)
    known = [r for r in read_records(records) if r["name"] == f"{grid.name}_{slug(SAME_TIME)}"]
    if known:
        longer = known[0]["outer_iterations"]
    else:
        total = lambda method: sum(r["cpu_s"] for (m, _), r in found.items() if m == method)  # noqa: E731
        length = next(r["outer_iterations"] for (m, _), r in found.items() if m == BASELINE)
        longer = round(length * total(grid.same_time) / total(BASELINE))
    return Row(SAME_TIME, baseline.config, {**baseline.options, "train.outer_iterations": longer})


def run_grid(grid: Grid, seeds: list[int], jobs: int, records: Path, work: Path, data: str | None) -> int:
    """Make what is missing, print the table; returns the number of failed runs."""
    runs = {(row.method, seed): resolve(grid, row, seed, data) for seed in seeds for row in grid.rows}
    with ThreadPoolExecutor(jobs) as pool:
        made = dict(zip(runs, pool.map(lambda run: execute(run, records, work), runs.values()), strict=True))
        found = {key: record for key, record in made.items() if record is not None}
        failed = len(made) - len(found)
        if grid.same_time and not failed:
            row = same_time_row(grid, found, records)
            longer = [resolve(grid, row, seed, data) for seed in seeds]
            extra = [record for record in pool.map(lambda run: execute(run, records, work), longer) if record]
            failed += len(longer) - len(extra)
            found |= {(SAME_TIME, record["seed"]): record for record in extra}
    shown = list(found.values())
    has_oracle = any(is_oracle(record) for record in shown)
    print((headroom_table if has_oracle else pretrain_table)(shown)[1])
    print(difference_table(shown)[1])
    return failed


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, 1 if a run failed, 2 after one line for wrong input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.headroom", description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--records", type=Path, default=Path("results/runs"))
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/headroom"))
    parser.add_argument("--data", help="root of the data set, where the grid's needs one")
    a = parser.parse_args(argv)
    try:
        if a.jobs < 1 or len(set(a.seeds)) < len(a.seeds):
            raise ConfigError("--jobs must be at least 1 and --seeds all different")
        records, work = a.records.absolute(), a.work_dir.absolute()
        return 1 if run_grid(load_grid(a.grid), a.seeds, a.jobs, records, work, a.data) else 0
    except MlomaeError as error:
        return refuse(error)


if __name__ == "__main__":
    sys.exit(main())
