"""The default of `make bench-cls`: what pretraining left in work_dirs, transferred to the embedded textures.

    python -m benchmarks.classification.embedded [--runs work_dirs] [--jobs 2]

Every backbone pretrained on the textures, and random weights of the first one's architecture as the floor, go through
k-NN, linear probe and fine-tuning with few labels. Each transfer is a process of its own with one thread, the command
of `benchmarks.classification`; one that is done is not repeated, one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.classification.config import TransferConfig, load_config
from benchmarks.classification.found import Backbone, find_backbones, floor_of, name_backbones
from benchmarks.classification.run import described
from benchmarks.process import ROOT, last_line, start
from benchmarks.records import Record, config_hash, read_record
from mlomae.cli import overrides
from mlomae.errors import ConfigError, MlomaeError, refuse

RECIPES = {"fine-tuning": "finetune", "linear": "linear", "k-NN": "knn"}  # title -> protocol, the longest first
TITLES = ("k-NN", "linear", "fine-tuning")
CLASSES = 8  # of the textures
SECONDS = 85  # of a processor (AMD EPYC), for the three transfers of a backbone of width 128 and depth 4


@dataclass(frozen=True)
class Task:
    """One transfer: ``options`` is what it changes in the recipe."""

    backbone: Backbone
    title: str
    recipe: Path
    config: TransferConfig
    options: dict[str, Any]
    folder: Path

    @property
    def label(self) -> str:
        return f"{self.backbone.origin.method}, seed {self.config.seed}: {self.title}"


def make_tasks(backbones: list[Backbone], out: Path, options: dict[str, Any]) -> list[Task]:
    """All transfers, the longest first; raises ConfigError for a bad option."""
    tasks = []
    for title, protocol in RECIPES.items():
        recipe = ROOT / "configs" / "classification" / f"{protocol}_textures.py"
        if not recipe.is_file():
            raise ConfigError(f"bench-cls needs the configs of a source checkout ('{recipe}' is missing)")
        for backbone in backbones:
            changes = {**options, "backbone.weights": backbone.weights, "seed": backbone.seed, "demo": True}
            config = load_config(recipe, changes)
            tasks.append(Task(backbone, title, recipe, config, changes, out / backbone.folder / protocol))
    return tasks


def done(task: Task) -> Record | None:
    """The record of ``task``, None if it is not finished; ConfigError if its folder holds another configuration's."""
    path = task.folder / "record.json"
    if not path.is_file():
        return None
    record = read_record(path, str(path))
    if record["config_hash"] != config_hash(described(task.config, task.backbone.origin)):
        raise ConfigError(
            f"'{task.folder}' holds a transfer with another recipe; move it away, or choose another --work-dir"
        )
    return record


def execute(task: Task) -> Record | None:
    """Run in a process of its own, log in its folder; None, and a line on standard error, if it failed."""
    found = done(task)
    if found is not None:
        print(f"{task.label}: {found['metrics']['top1']:.1f} % (was done)", flush=True)
        return found
    task.folder.mkdir(parents=True, exist_ok=True)
    log = task.folder / "log.txt"
    command = [sys.executable, "-m", "benchmarks.classification", str(task.recipe)]
    command += ["--work-dir", str(task.folder.absolute()), "--resume", "--cfg-options"]
    command += [f"{key}={value!r}" for key, value in task.options.items()]
    status = start(command, log)
    found = None if status else done(task)
    if found is None:
        print(f"{task.label}: failed with status {status}: {last_line(log)} (log: {log})", file=sys.stderr, flush=True)
        return None
    print(f"{task.label}: {found['metrics']['top1']:.1f} %", flush=True)
    return found


def summary(backbones: list[Backbone], records: dict[tuple[Backbone, str], Record]) -> pd.DataFrame:
    """One row a backbone, accuracies in percent; "" where a transfer failed."""
    rows = []
    for b in backbones:
        found = {title: records.get((b, title)) for title in TITLES}
        row: dict[str, Any] = {"backbone": b.origin.method, "seed": b.seed, "images seen": b.images_seen}
        row |= {f"{title} %": f"{r['metrics']['top1']:.1f}" if r else "" for title, r in found.items()}
        rows.append({**row, "CPU s": round(sum(r["cpu_s"] for r in found.values() if r))})
    return pd.DataFrame(rows)


def report(backbones: list[Backbone], records: dict[tuple[Backbone, str], Record], out: Path) -> str:
    """The table and what is needed to read it, as text."""
    lines = ["", summary(backbones, records).to_string(index=False), ""]
    some = next(iter(records.values()), None)
    if some is not None:
        train, test = (some[key].split(", ")[-1] for key in ("train_source", "eval_source"))
        lines += [
            f"Top-1 on {test} that no pretraining saw, with the labels of {train}; chance {100 / CLASSES:.1f} %.",
            "One run a row: it shows that the transfer works, not which method is better. A pretraining with feedback",
            "has used the labels of its whole training set, more than are used here; MAE has used none.",
        ]
    lines += [f"note: {b.note}" for b in backbones if b.note]
    place = f"{out}/METHOD/SEED/PROTOCOL"
    lines += [
        "",
        f"{place}/confusion.png      which classes are taken for which",
        f"{place}/predictions.npz    every test image; two runs on the same images:",
        "    python -m benchmarks.classification.compare A/predictions.npz B/predictions.npz",
    ]
    return "\n".join(lines)


def run_embedded(a: argparse.Namespace) -> int:
    """Find, transfer, print; returns 0, or 1 if a transfer failed."""
    if a.jobs < 1 or a.most < 1:
        raise ConfigError("--jobs and --most must be at least 1")
    runs, out = Path(a.runs), Path(a.work_dir)
    backbones = name_backbones(a.weights) if a.weights else find_backbones(runs, out, a.most)
    backbones += floor_of(backbones[0])
    tasks = make_tasks(backbones, out, overrides(a.cfg_options))
    left = sum(done(task) is None for task in tasks)
    minutes = max(1, round(left / len(RECIPES) * SECONDS / 60 / a.jobs))
    print(f"{len(backbones)} backbones, {left} transfers to make, {a.jobs} at a time with one thread each", end="")
    print(f": about {minutes} min for small ViTs" if left else "", flush=True)
    with ThreadPoolExecutor(a.jobs) as pool:
        try:
            made = list(pool.map(execute, tasks))
        except BaseException:  # ctrl-c, or an error in one: start no further transfer
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    records = {(t.backbone, t.title): r for t, r in zip(tasks, made, strict=True) if r is not None}
    print(report(backbones, records, out))
    return 0 if len(records) == len(tasks) else 1


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, 1 if a transfer failed, 2 after one line for wrong input, 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classification.embedded", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--runs", default="work_dirs", help="folder to look for pretraining runs in")
    parser.add_argument("--weights", nargs="+", help="these backbones, not those found; as --weights of one transfer")
    parser.add_argument("--most", type=int, default=8, help="how many backbones, the newest ones (default: 8)")
    parser.add_argument("--work-dir", default="work_dirs/bench-cls", help="folder of all that is written")
    parser.add_argument("--jobs", type=int, default=2, help="transfers at a time, one thread each")
    parser.add_argument(
        "--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override keys of all recipes"
    )
    try:
        return run_embedded(parser.parse_args(argv))
    except MlomaeError as error:
        return refuse(error)
    except KeyboardInterrupt:
        print("error: interrupted; run it again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
