"""The default of the benchmarks: what pretraining left in work_dirs, transferred to embedded data.

Every backbone pretrained on the textures, and random weights of the first one's architecture as the floor, go through
the recipes of a `Bench`. Each transfer is a process of its own with one thread, the command of `benchmarks.TASK`; one
that is done is not repeated, one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.process import ROOT, last_line, start
from benchmarks.transfer.found import Backbone, find_backbones, floor_of, name_backbones
from mlomae.backbones.records import described
from mlomae.common.errors import ConfigError, MlomaeError, refuse
from mlomae.config.strict import overrides
from mlomae.records import Record, config_hash, read_record


@dataclass(frozen=True)
class Bench:
    """What is transferred to what.

    ``task``: the package, and the folder under configs/. ``recipes``: title of a transfer -> its config, the longest
    first. ``columns``: of the printed table, -> (title, metric in percent). ``seconds``: of a processor, for all
    transfers of a small backbone. ``explain``: what a reader of the table must know, from one of its records.
    """

    task: str
    load_config: Callable[..., Any]
    recipes: dict[str, str]
    columns: dict[str, tuple[str, str]]
    seconds: float
    explain: Callable[[Record], list[str]]
    outputs: list[str]
    prepare: Callable[[Path], dict[str, Any]] = lambda out: {}  # writes data under ``out``; options of all recipes

    def headline(self, title: str) -> str:
        """The metric that stands for a transfer."""
        return next(metric for name, metric in self.columns.values() if name == title)


@dataclass(frozen=True)
class Task:
    """One transfer: ``options`` is what it changes in the recipe."""

    bench: Bench
    backbone: Backbone
    title: str
    recipe: Path
    config: Any
    options: dict[str, Any]
    folder: Path

    def said(self, record: Record) -> str:
        return f"{self.label}: {record['metrics'][self.bench.headline(self.title)]:.1f} %"

    @property
    def label(self) -> str:
        return f"{self.backbone.origin.method}, seed {self.config.seed}: {self.title}"


def make_tasks(bench: Bench, backbones: list[Backbone], out: Path, options: dict[str, Any]) -> list[Task]:
    """All transfers, the longest first; raises ConfigError for a bad option."""
    tasks = []
    for title, name in bench.recipes.items():
        recipe = ROOT / "configs" / bench.task / f"{name}.py"
        if not recipe.is_file():
            raise ConfigError(f"the default needs the configs of a source checkout ('{recipe}' is missing)")
        for backbone in backbones:
            changes = {**options, "backbone.weights": backbone.weights, "seed": backbone.seed, "demo": True}
            config = bench.load_config(recipe, changes)
            tasks.append(
                Task(
                    bench,
                    backbone,
                    title,
                    recipe,
                    config,
                    changes,
                    out / backbone.folder / name.removesuffix("_textures"),
                )
            )
    return tasks


def _folders(config: dict[str, Any]) -> list[Any]:
    """Of the data. One that a bench prepares is named by what it holds, and a configuration's hash leaves it out."""
    return [config["data"][part].get("root") for part in ("train", "test")]


def done(task: Task) -> Record | None:
    """The record of ``task``, None if it is not finished; ConfigError if the folder holds another recipe or data."""
    path = task.folder / "record.json"
    if not path.is_file():
        return None
    record, wanted = read_record(path, str(path)), described(task.config, task.backbone.origin)
    if record["config_hash"] != config_hash(wanted) or _folders(record["config"]) != _folders(wanted):
        raise ConfigError(
            f"'{task.folder}' holds a transfer with another recipe; move it away, or choose another --work-dir"
        )
    return record


def execute(task: Task) -> Record | None:
    """Run in a process of its own, log in its folder; None, and a line on standard error, if it failed."""
    found = done(task)
    if found is not None:
        print(f"{task.said(found)} (was done)", flush=True)
        return found
    task.folder.mkdir(parents=True, exist_ok=True)
    log = task.folder / "log.txt"
    command = [sys.executable, "-m", "mlomae.cli", "bench", task.bench.task, str(task.recipe)]
    command += ["--work-dir", str(task.folder.absolute()), "--resume", "--cfg-options"]
    command += [f"{key}={value!r}" for key, value in task.options.items()]
    status = start(command, log)
    found = None if status else done(task)
    if found is None:
        print(f"{task.label}: failed with status {status}: {last_line(log)} (log: {log})", file=sys.stderr, flush=True)
        return None
    print(task.said(found), flush=True)
    return found


def summary(bench: Bench, backbones: list[Backbone], records: dict[tuple[Backbone, str], Record]) -> pd.DataFrame:
    """One row a backbone, metrics in percent; "" where a transfer failed."""
    rows = []
    for b in backbones:
        found = {title: records.get((b, title)) for title in bench.recipes}
        row: dict[str, Any] = {"backbone": b.origin.method, "seed": b.seed, "images seen": b.images_seen}
        for column, (title, metric) in bench.columns.items():
            record = found[title]
            row[f"{column} %"] = f"{record['metrics'][metric]:.1f}" if record else ""
        rows.append({**row, "CPU s": round(sum(r["cpu_s"] for r in found.values() if r))})
    return pd.DataFrame(rows)


def report(bench: Bench, backbones: list[Backbone], records: dict[tuple[Backbone, str], Record], out: Path) -> str:
    """The table and what is needed to read it, as text."""
    lines = ["", summary(bench, backbones, records).to_string(index=False), ""]
    some = next(iter(records.values()), None)
    if some is not None:
        lines += bench.explain(some)
    lines += [f"note: {b.note}" for b in backbones if b.note]
    return "\n".join([*lines, "", *(line.replace("OUT", f"{out}/METHOD/SEED/RECIPE") for line in bench.outputs)])


def transfer_all(
    bench: Bench, backbones: list[Backbone], out: Path, options: dict[str, Any], jobs: int
) -> tuple[dict[tuple[Backbone, str], Record], bool]:
    """Make what is missing, ``jobs`` at a time; the records by backbone and title, and whether none failed."""
    tasks = make_tasks(bench, backbones, out, {**bench.prepare(out), **options})
    left = sum(done(task) is None for task in tasks)
    minutes = max(1, round(left / len(bench.recipes) * bench.seconds / 60 / jobs))
    print(f"{len(backbones)} backbones, {left} transfers to make, {jobs} at a time with one thread each", end="")
    print(f": about {minutes} min for small ViTs" if left else "", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            made = list(pool.map(execute, tasks))
        except BaseException:  # ctrl-c, or an error in one: start no further transfer
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    records = {(t.backbone, t.title): r for t, r in zip(tasks, made, strict=True) if r is not None}
    return records, len(records) == len(tasks)


def run_embedded(bench: Bench, a: argparse.Namespace) -> int:
    """Find, transfer, print; returns 0, or 1 if a transfer failed."""
    if a.jobs < 1 or a.most < 1:
        raise ConfigError("--jobs and --most must be at least 1")
    runs, out = Path(a.runs), Path(a.work_dir)
    backbones = name_backbones(a.weights) if a.weights else find_backbones(runs, out, a.most)
    backbones += floor_of(backbones[0])
    records, complete = transfer_all(bench, backbones, out, overrides(a.cfg_options), a.jobs)
    print(report(bench, backbones, records, out))
    return 0 if complete else 1


def embedded_main(bench: Bench, title: str, work_dir: str, argv: list[str] | None) -> int:
    """Command line; 0, 1 if a transfer failed, 2 after one line for wrong input, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{bench.task}.embedded", description=title)
    parser.add_argument("--runs", default="work_dirs", help="folder to look for pretraining runs in")
    parser.add_argument("--weights", nargs="+", help="these backbones, not those found; as --weights of one transfer")
    parser.add_argument("--most", type=int, default=8, help="how many backbones, the newest ones (default: 8)")
    parser.add_argument("--work-dir", default=work_dir, help="folder of all that is written")
    parser.add_argument("--jobs", type=int, default=2, help="transfers at a time, one thread each")
    parser.add_argument(
        "--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override keys of all recipes"
    )
    try:
        return run_embedded(bench, parser.parse_args(argv))
    except MlomaeError as error:
        return refuse(error)
    except KeyboardInterrupt:
        print("error: interrupted; run it again to go on", file=sys.stderr)
        return 130
