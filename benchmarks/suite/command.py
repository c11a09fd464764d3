"""``mlomae suite run FILE`` makes what is missing, ``mlomae suite status FILE`` shows what there is.

The command line is in `options`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.analysis.tables.build import build_tables
from benchmarks.cost.flops.update import update_flops
from benchmarks.suite.file import load_suite
from benchmarks.suite.grid import describe, stale_jobs
from benchmarks.suite.jobs import Job, Planner
from benchmarks.suite.launch import Launcher, cluster, local
from benchmarks.suite.proof import Proofs
from benchmarks.suite.runner import SuiteRunner
from mlomae.common.errors import ConfigError
from mlomae.records import Record, predictions_of, read_records

SUPERSEDED = "superseded"  # folder beside the records: nothing that was measured is thrown away


def _planned(args: argparse.Namespace) -> tuple[Planner, Proofs, Path]:
    suite = load_suite(Path(args.file))
    proofs = Proofs(Path(args.records).absolute(), args.any_code)
    planner = Planner(suite, roots(args.data), args.seeds)
    return planner, proofs, Path(args.work_dir or f"work_dirs/suites/{suite.name}").absolute()


def roots(pairs: list[str]) -> dict[str, str]:
    """``TYPE=ROOT`` pairs; ConfigError for a text that is none, or a folder that is not there."""
    found = {}
    for pair in pairs:
        kind, equals, root = pair.partition("=")
        if not equals:
            raise ConfigError(f"--data takes TYPE=ROOT, the type of a source and its folder; got '{pair}'")
        if not Path(root).exists():
            raise ConfigError(f"--data {kind}: '{root}' does not exist; give the folder of the data set")
        found[kind] = str(Path(root).absolute())
    return found


def show_status(args: argparse.Namespace) -> int:
    """Print the grid; 0."""
    planner, proofs, work = _planned(args)
    print(describe(planner, proofs, work))
    return 0


def run_suite(args: argparse.Namespace) -> int:
    """Make what is missing, then the tables; 0, or 1 if a run failed. Raises ConfigError, before anything runs, for
    records of the suite's runs that prove nothing here."""
    planner, proofs, work = _planned(args)
    if args.jobs < 1:
        raise ConfigError("--jobs must be at least 1")
    if stale := stale_jobs(planner, proofs):
        if not args.redo:
            job, why = stale[0]
            raise ConfigError(
                f"{len(stale)} records prove nothing here ({job.label}: {why}); --any-code lets those of other code "
                "count, --redo keeps them in 'superseded' and runs again"
            )
        set_aside([job for job, _ in stale], proofs)
        planner, proofs, work = _planned(args)
    runner = SuiteRunner(planner, proofs, work, _launcher(args, planner, work), args.jobs, _say)
    complete = runner.run()
    print(f"\n{describe(planner, proofs, work)}")
    print(f"{len(runner.made)} made, {len(runner.found)} were on record, {len(runner.failed)} failed", end="")
    print(f", {len(runner.blocked)} not run" if runner.blocked else "")
    if not args.no_tables and proofs.folder.is_dir():
        for error in update_flops(read_records(proofs.folder), proofs.folder.parent / "flops.json"):
            print(error)  # its cell stays empty
        build_tables(proofs.folder, proofs.folder.parent)
        print(f"tables: {proofs.folder.parent}")
    return 0 if complete else 1


def set_aside(jobs: list[Job], proofs: Proofs) -> None:
    """Move the records of ``jobs``, and their predictions, out of the way; ConfigError, before anything is moved, if
    something lies there already."""
    folder = proofs.folder.parent / SUPERSEDED
    moves: list[tuple[Path, Path]] = []
    for job in jobs:
        record = proofs.of(job).record
        assert record is not None
        path = proofs.path_of(record)
        name = path.relative_to(proofs.folder)
        kept = folder / name.with_stem(f"{name.stem}_{_version(record)}")
        # predictions first: killed between the two, the next try moves the record, and no run replaces predictions
        predictions = predictions_of(name.as_posix(), proofs.folder)
        if predictions.is_file():
            moves.append((predictions, kept.with_suffix(predictions.suffix)))
        moves.append((path, kept))
    if taken := [target for _, target in moves if target.exists()]:
        raise ConfigError(f"'{taken[0]}' is there already; move it away, it would be replaced")
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def _version(record: Record) -> str:
    return str(record["git_commit"] or record["versions"].get("mlomae", "unknown"))[:12]


def _launcher(args: argparse.Namespace, planner: Planner, work: Path) -> Launcher:
    suite = planner.suite
    if args.cluster is None:
        return local(suite.threads)
    return cluster(args.cluster, work / "submitit", suite.cluster, suite.threads)


def _say(line: str) -> None:
    print(line, flush=True)
