"""The work of ``mlomae suite run FILE``; `benchmarks.commands` has its command line."""

import argparse
import threading
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from benchmarks.analysis.evidence import find_predictions
from benchmarks.analysis.tables.build import build_tables
from benchmarks.cost.flops import update_flops
from benchmarks.suite.backbones import discover_backbones, named_backbones, random_floor
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import ROOT, load_suite
from benchmarks.suite.jobs import Job, Planner
from benchmarks.suite.launch import Launcher, check_jobs, cluster
from benchmarks.suite.runner import SuiteRunner
from benchmarks.suite.status import describe, results_table, stale_jobs
from benchmarks.tasks import get_task
from mlomae.backbones.task import EmbeddedBench
from mlomae.common.console import say
from mlomae.common.errors import ConfigError
from mlomae.common.ownership import InUse, owned
from mlomae.common.processes import Progress, start
from mlomae.common.registry import check_range
from mlomae.config.strict import overrides
from mlomae.placing import check_writable
from mlomae.records import read_records

SUPERSEDED = "superseded"  # folder next to the records and in the work folder: no measurement is ever deleted


def plan(args: argparse.Namespace) -> tuple[Planner, CompletedRuns]:
    """The runs of a suite, and the records of those that are completed."""
    suite = load_suite(Path(args.file))
    work = Path(args.work_dir or f"work_dirs/suites/{suite.name}").absolute()
    if args.tasks:
        wanted = [get_task(name).name for name in args.tasks]
        suite.tasks = [entry for entry in suite.tasks if entry.task in wanted]
    backbones = []
    if suite.demo:
        check_range("", "[1, inf)", most=args.most)
        found = named_backbones(args.weights) if args.weights else discover_backbones(Path(args.runs), work, args.most)
        floor = random_floor(found[0]) if suite.floor else []
        backbones = found + [b for b in floor if b.folder not in [other.folder for other in found]]
    records = None if suite.demo else Path(args.records).absolute()
    planner = Planner(suite, work, records, roots(args.data), args.seeds, backbones, overrides(args.cfg_options))
    return planner, CompletedRuns(records, args.any_numerics)


def roots(pairs: list[str]) -> dict[str, str]:
    """``TYPE=ROOT`` pairs as a dict; ConfigError for any other text, or a folder that does not exist."""
    found = {}
    for pair in pairs:
        kind, equals, root = pair.partition("=")
        if not equals:
            raise ConfigError(f"--data takes TYPE=ROOT, the type of a source and its folder; got '{pair}'")
        if not Path(root).exists():
            raise ConfigError(f"--data {kind}: '{root}' does not exist; give the folder of the data set")
        found[kind] = str(Path(root).absolute())
    return found


def run_suite(args: argparse.Namespace, progress: Progress | None = None) -> int:
    """Run what is missing, then make the tables; 0, or 1 if a run failed. Raises ConfigError, before anything runs, for
    stale records of the suite's runs. ``progress``: a display that is open and counts these runs, too."""
    check_range("", "[1, inf)", jobs=args.jobs)
    planner, completed = plan(args)
    if completed.folder is not None:
        check_writable(completed.folder)
    if stale := stale_jobs(planner, completed):
        if not args.redo:
            job, why = stale[0]
            raise ConfigError(
                f"stale records: {len(stale)}, the first {job.label} ({why}); --any-numerics accepts those of other "
                "NUMERICS, --redo moves them to 'superseded' and runs again"
            )
        set_aside([job for job, _ in stale], completed, planner.work)
        planner, completed = plan(args)
    suite = planner.suite
    for lock in completed.folder.glob(".*.lock") if completed.folder else ():
        with suppress(InUse), owned(lock, lock, patience=0):  # removes what a killed process has left
            pass
    stop = threading.Event()
    if args.cluster is None:
        launch: Launcher = lambda command, log, _: start(command, log, threads=suite.threads, stop=stop, folder=ROOT)  # noqa: E731
    else:
        check_jobs(args.cluster, planner.work / "submitit", planner.jobs())
        launch = cluster(args.cluster, planner.work / "submitit", suite.threads, stop)
    if suite.demo:
        _prepare_demo(planner, completed, args.jobs)
    with nullcontext(progress) if progress else Progress(suite.name) as shown:
        runner = SuiteRunner(planner, completed, launch, args.jobs, partial(say, wrap=False), stop, shown)
        complete = runner.run()
    if suite.demo:
        print(f"\n{_demo_report(planner, runner)}")
        return 0 if complete else 1
    print(f"\n{describe(planner, completed)}")
    print(
        f"{len(runner.finished)} finished, {len(runner.on_record)} were on record, {len(runner.failed)} failed", end=""
    )
    print(f", {len(runner.blocked)} not run" if runner.blocked else "")
    folder = completed.folder
    if not args.no_tables and folder is not None and folder.is_dir():
        with owned(folder.parent, folder.parent / ".tables.lock", patience=600):  # another suite may have ended, too
            for error in update_flops(read_records(folder), folder.parent / "flops.json"):
                print(error)  # its cell stays empty
            build_tables(folder, folder.parent)
        print(f"tables: {folder.parent}")
    return 0 if complete else 1


def set_aside(jobs: list[Job], completed: CompletedRuns, work: Path) -> None:
    """Move the records of ``jobs``, their predictions and the runs' folders, whose checkpoints would be resumed, to
    `SUPERSEDED`. Raises ConfigError, before anything is moved, if a target exists."""
    moves: list[tuple[Path, Path]] = []
    for job in jobs:
        path, record = completed.path_and_record(job)
        assert record is not None
        version = str(record["git_commit"] or record["versions"].get("mlomae", "unknown"))[:12]
        if completed.folder is not None:
            name = path.relative_to(completed.folder)
            kept = completed.folder.parent / SUPERSEDED / name.with_stem(f"{name.stem}_{version}")
            # predictions first: if killed in between, the next try moves the record; no run ever replaces predictions
            predictions = find_predictions(name.as_posix(), record, completed.folder)
            moves += [(predictions, kept.with_suffix(predictions.suffix))] if predictions else []
            moves += [(path, kept)]
        moves.append((job.folder, work / SUPERSEDED / f"{job.label}_{version}"))
    moves = [(source, target) for source, target in moves if source.exists()]
    if taken := [target for _, target in moves if target.exists()]:
        raise ConfigError(f"'{taken[0]}' exists already; move it away, it would be replaced")
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


# --- demos ------------------------------------------------------------------------------------------------------------


def demo_effort(file: str) -> float:
    """The processor seconds of all transfers of one backbone (of width 128 and depth 4) in the suite ``file``."""
    entries = load_suite(Path(file)).tasks
    known = [(get_task(entry.task).embedded, Path(recipe).stem) for entry in entries for recipe in entry.recipes]
    return sum(embedded.effort(recipe) for embedded, recipe in known if embedded is not None)


def _embedded(planner: Planner) -> dict[str, EmbeddedBench]:
    """Task -> its transfers to the embedded textures, of the tasks of a demo."""
    tasks = (get_task(name) for name in dict.fromkeys(entry.task for entry in planner.suite.tasks))
    return {task.name: task.embedded for task in tasks if task.embedded is not None}


def _prepare_demo(planner: Planner, completed: CompletedRuns, jobs: int) -> None:
    """Write the data that the tasks read from files, and print how long the demo will take."""
    missing = [job for job in planner.jobs() if completed.of(job)[0] is None]
    for bench in _embedded(planner).values():
        bench.write_data(planner.data_folder)
    minutes = max(1, round(sum(job.effort for job in missing) / 60 / jobs))
    how_long = f": about {minutes} min for small ViTs" if missing else ""
    say(f"{len(planner.backbones)} backbones, {len(missing)} transfers to run, {jobs} at a time{how_long}")


def _demo_report(planner: Planner, runner: SuiteRunner) -> str:
    """The table of a demo, with notes on how to read it."""
    lines, outputs = [results_table(runner.jobs, runner.records).to_string(index=False), ""], [""]
    for name, bench in _embedded(planner).items():
        if done := [job for job in runner.jobs if job.task == name and job.label in runner.records]:
            some = runner.records[done[0].label]
            train, test = (some[f"{part}_source"].split(", ")[-1] for part in ("train", "eval"))
            titles = ", ".join(dict.fromkeys(job.title for job in done))
            lines.append(f"{titles}: {bench.note.format(train=train, test=test)}")
            outputs += [f"{done[0].folder.parents[2]}/METHOD/SEED/RECIPE", *(f"    {line}" for line in bench.outputs)]
    lines.append("One run per row: this does not show which method is better. s: seconds of pretraining.")
    lines += [f"note: {backbone.note}" for backbone in planner.backbones if backbone.note]
    return "\n".join([*lines, *outputs])
