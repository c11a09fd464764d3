"""The commands that need a checkout: `mlomae bench`, `compare`, `demo`, `suite` and `table`.

They import what they run when they run, so that --help answers at once.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlomae.common.console import say
from mlomae.common.registry import check_range

if TYPE_CHECKING:
    from mlomae.common.processes import Progress

BENCH, DEMO = (str(Path(__file__).parents[1] / "configs" / "suites" / f"{name}.py") for name in ("bench", "demo"))
CLUSTERS = ("slurm", "local")  # submitit's names; local is for trying out a suite's jobs on this machine


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands to those of `mlomae`."""
    p = commands.add_parser("bench", help="transfer a backbone to a task, evaluate it, write a record")
    p.add_argument("task", help="classification, ...: a folder of benchmarks/tasks/")
    p.add_argument("config", help="a file of configs/TASK/")
    p.add_argument(
        "--weights",
        help="backbone: a run's folder, a checkpoint, an export, weights of another library, hf-hub:OWNER/NAME, "
        "timm:NAME[:pretrained] or random[:PATH]",
    )
    p.add_argument("--data", help="data root: sets data.train.root, data.val.root and data.test.root")
    p.add_argument("--seed", type=int, help="default: the seed of the backbone's pretraining, else the config's")
    p.add_argument("--work-dir", help="where checkpoints and results go (default: work_dirs/NAME_METHOD_seedN)")
    p.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of the work dir")
    p.add_argument(
        "--records", help="also write the record here, e.g. results/runs, its predictions in 'predictions' there"
    )
    p.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override config keys")
    p.add_argument("--custom-imports", nargs="+", default=[], metavar="MODULE", help="import plug-ins, e.g. a task's")
    p.add_argument("--log-to", nargs="+", default=[], metavar="NAME", help="beside TensorBoard: wandb, mlflow, trackio")
    p.set_defaults(run=_bench)

    p = commands.add_parser(
        "compare", help="does a learned mask pay on your own class folders? five methods, seeds, one page"
    )
    p.add_argument("--data", required=True, metavar="FOLDER", help="images in class folders, or train and val folders")
    p.add_argument("--work-dir", help="folder of everything that is written (default: work_dirs/NAME_compared)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two or more (default: 0 1 2)")
    p.add_argument("--jobs", type=int, help="runs at a time, one thread each (default: the cores; 1 on a GPU)")
    p.add_argument(
        "--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override keys of the pretrainings"
    )
    p.add_argument("--dry-run", action="store_true", help="say what would run and how long it takes, and stop")
    p.set_defaults(run=_compare)

    p = commands.add_parser(
        "demo", help="two pretrainings and their transfer to three tasks on embedded data, in minutes on a CPU"
    )
    p.add_argument("--work-dir", default="work_dirs/demo", help="folder for everything that is written")
    p.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (default: 2)")
    p.set_defaults(run=_demo)

    p = commands.add_parser(
        "table",
        help="print a result table, or the records behind one of its cells",
        epilog='example: mlomae table classification --trace "cub200|linear|MLO-MAE (nca, mask pooling)|top1_vs_mae"',
    )
    p.add_argument("name", help="pretrain, headroom, differences, classification, comparison, ...")
    p.add_argument(
        "--trace",
        metavar='"WORD|...|COLUMN"',
        help="a column of the CSV, and before it words that name the row: its data set, method, config, ... in any "
        "order; if nothing matches, the closest cells are listed",
    )
    p.add_argument("--records", default="results/runs", help="folder of run records (default: results/runs)")
    p.set_defaults(run=_table)

    add_suite(commands)


def add_suite(commands: argparse._SubParsersAction) -> None:
    """The subcommands ``suite run`` and ``suite status``."""
    parser = commands.add_parser("suite", help="methods x tasks x data sets x seeds from one file")
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="run what is missing, then make the tables; resumes what was killed")
    status = actions.add_parser("status", help="the grid: what is done, running, failed, stale, missing")
    for p in (run, status):
        p.add_argument("file", help="a file of configs/suites/")
        p.add_argument("--data", nargs="*", default=[], metavar="TYPE=ROOT", help="where data are: cifar10=PATH ...")
        p.add_argument("--seeds", type=int, nargs="+", help="run only these of the suite's seeds")
        p.add_argument("--records", default="results/runs", help="folder of the records (default: results/runs)")
        p.add_argument("--work-dir", help="folder of the runs (default: work_dirs/suites/NAME)")
        p.add_argument("--any-numerics", action="store_true", help="records of other NUMERICS count as done")
        p.add_argument("--weights", nargs="+", default=[], help="of a suite with demo=True: transfer these backbones")
        p.add_argument(
            "--runs", default="work_dirs", help="of a suite with demo=True: where to look for pretrained backbones"
        )
        p.add_argument(
            "--most", type=int, default=8, help="of a suite with demo=True: at most this many, the newest (default: 8)"
        )
        p.add_argument("--tasks", nargs="+", default=[], help="transfer to these tasks only")
        p.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override keys of all recipes")
    run.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    run.add_argument("--cluster", choices=CLUSTERS, help="run as jobs of submitit, with the suite's parameters")
    run.add_argument("--redo", action="store_true", help="repeat stale runs; what they left is moved to 'superseded'")
    run.add_argument("--no-tables", action="store_true", help="do not regenerate the tables next to the records")
    parser.set_defaults(run=_suite)


def _bench(args: argparse.Namespace) -> int:
    from mlomae.config.strict import overrides

    weights = args.weights or overrides(args.cfg_options).get("backbone.weights") or "random weights"
    say(f"transfer of {weights} to {args.task}, {args.config}")
    from benchmarks.tasks import get_task
    from mlomae.backbones.transfer import transfer

    task = get_task(args.task, Path(args.config))
    record, work_dir = transfer(task, args)
    for name, value in record.get("metrics", {}).items():
        if isinstance(value, int | float):
            print(f"{name:24s} {value:.4g}")
    if record:
        print(f"{task.outputs}: {work_dir}")
    return 0


def _suite(args: argparse.Namespace) -> int:
    from benchmarks.suite.command import plan, run_suite
    from benchmarks.suite.status import describe

    if args.action == "run":
        return run_suite(args)
    print(describe(*plan(args)))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from benchmarks.suite.compare import compare
    from mlomae.config.strict import overrides

    args.changes = overrides(args.cfg_options)
    return compare(args, _run_suite)


def _run_suite(options: list[str], progress: "Progress | None" = None) -> int:
    """``suite run`` with ``options``, the suite's file first; the exit status. ``progress`` as in `run_suite`."""
    from benchmarks.suite.command import run_suite

    parser = argparse.ArgumentParser()
    add_suite(parser.add_subparsers())
    return run_suite(parser.parse_args(["suite", "run", *options]), progress)


def _demo(args: argparse.Namespace) -> int:
    from benchmarks.suite.command import demo_effort
    from mlomae.commands.demo import EFFORT, RUNS, pretrain_demo
    from mlomae.common.processes import Progress
    from mlomae.pretraining.log import duration

    check_range("", "[1, inf)", jobs=args.jobs)
    started, work = time.monotonic(), Path(args.work_dir)
    with Progress("demo", EFFORT * len(RUNS) + (1 + len(RUNS)) * demo_effort(DEMO)) as progress:
        weights = [str(path) for path in pretrain_demo(work, args.jobs, progress)]
        say("\nTransfer to three tasks:")
        options = ["--work-dir", str(work / "transfer"), "--jobs", str(args.jobs), "--weights", *weights]
        status = _run_suite([DEMO, *options], progress)
    for line in (
        f"\nThe demo took {duration(time.monotonic() - started)}. To go on:",
        f"  {work}/*/pictures           images, masked images, reconstructions; results of transfers: {work}/transfer",
        f"  tensorboard --logdir {work}  the losses of the levels",
        f"  mlomae export {work}/mlomae-pooled OUT --format timm",
        "  mlomae pretrain --data FOLDER  on images of your own",
    ):
        say(line, wrap=False)
    return status


def _table(args: argparse.Namespace) -> int:
    from benchmarks.analysis.tables.trace import CellError, trace

    try:
        print(trace(Path(args.records), args.name, args.trace))
    except CellError as error:
        print("\n".join(error.near))
        raise
    return 0
