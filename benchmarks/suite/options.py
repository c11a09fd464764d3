"""The command line of suites, apart from what they import."""

from __future__ import annotations

import argparse

CLUSTERS = ("slurm", "local")  # as submitit calls them; local is for trying a suite's jobs out on this machine


def add_parser(commands: argparse._SubParsersAction) -> None:
    """The subcommands ``suite run`` and ``suite status``."""
    parser = commands.add_parser("suite", help="methods x tasks x data sets x seeds from one file")
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="make what is missing, then the tables; what was killed goes on")
    status = actions.add_parser("status", help="the grid: what is done, running, failed, stale, missing")
    for p in (run, status):
        p.add_argument("file", help="a file of configs/suites/")
        p.add_argument("--data", nargs="*", default=[], metavar="TYPE=ROOT", help="where data lie: cifar10=PATH ...")
        p.add_argument("--seeds", type=int, nargs="+", help="of the suite's seeds, these alone")
        p.add_argument("--records", default="results/runs", help="folder of the records (default: results/runs)")
        p.add_argument("--work-dir", help="folder of the runs (default: work_dirs/suites/NAME)")
        p.add_argument("--any-code", action="store_true", help="records of other versions of the code count as done")
    run.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    run.add_argument("--cluster", choices=CLUSTERS, help="through submitit, with the suite's parameters")
    run.add_argument("--redo", action="store_true", help="make stale runs again; what they left goes to 'superseded'")
    run.add_argument("--no-tables", action="store_true", help="do not regenerate the tables beside the records")
    run.set_defaults(run=_run)
    status.set_defaults(run=_status)


def _run(args: argparse.Namespace) -> int:
    from benchmarks.suite.command import run_suite

    return run_suite(args)


def _status(args: argparse.Namespace) -> int:
    from benchmarks.suite.command import show_status

    return show_status(args)
