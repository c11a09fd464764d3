"""The command line: ``mlomae pretrain | demo | suite | export | evaluate | diagnose | horizon | masks | table``...

A wrong input is one line and ends with status 2, without a traceback unless MLOMAE_TRACEBACK is set. A run that SIGTERM
or SIGUSR1 has stopped ends with status 75, one that was interrupted with 130.
"""

import argparse
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from mlomae import __version__
from mlomae.commands import data, export, pretrain, use
from mlomae.commands.calling import call, report
from mlomae.common.console import hush
from mlomae.common.errors import REFUSABLE, STOPPED, ConfigError, refuse
from mlomae.common.installing import from_checkout

_LIBRARIES = r"(torch|torchvision|timm|mmengine|mmcv|mmseg|mmdet|pycocotools|sklearn|PIL)(\.|$)"


def _loggers(names: list[str]) -> AbstractContextManager[None]:
    if not names:
        return nullcontext()
    from mlomae.pretraining.loggers import logging_to

    return logging_to(names)


def _print_metrics(metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        print(f"{name:20s} {value:.4g}")


def _evaluate(args: argparse.Namespace) -> int:
    from mlomae.common.checkpoint import TRANSFER_FORMAT, format_of
    from mlomae.pretraining.load import evaluate_checkpoint

    root = args.data_root
    if format_of(args.checkpoint) == TRANSFER_FORMAT:
        from mlomae.backbones.load import evaluate_transfer

        use.register_tasks()
        _print_metrics(
            evaluate_transfer(args.checkpoint, {"data.train.root": root, "data.test.root": root} if root else {})
        )
        return 0
    _print_metrics(
        evaluate_checkpoint(args.checkpoint, {"data.train.root": root, "data.eval.root": root} if root else {})
    )
    return 0


def _diagnose(args: argparse.Namespace) -> int:
    from mlomae.diagnostics.diagnose import diagnose
    from mlomae.diagnostics.summary import table

    result, folder = call(diagnose, args)
    print(table(result))
    print(f"written: {folder / 'influence.png'}, {folder / 'diagnose.json'}")
    return 0


def _horizon(args: argparse.Namespace) -> int:
    import time

    from mlomae.diagnostics.horizon.report import table
    from mlomae.diagnostics.horizon.run import horizon

    started = time.perf_counter()
    result, folder = call(horizon, args, say=lambda line: print(line, flush=True))
    print(table(result))
    print(f"written: {folder / 'horizon.png'}, {folder / 'horizon.json'}; {time.perf_counter() - started:.0f} s")
    return 0


def _masks(args: argparse.Namespace) -> int:
    from mlomae.diagnostics.masks import draw_masks

    print(f"written: {args.out} ({', '.join(call(draw_masks, args))})")
    return 0


def _needs_checkout(args: argparse.Namespace) -> int:
    raise ConfigError(f"`mlomae {args.command}` needs a checkout of the repository; clone it, then run `make setup`")


def _first_act(args: argparse.Namespace) -> int:
    from mlomae.commands.demo import pretrain_demo

    checkpoints = pretrain_demo(args.work_dir, args.jobs)
    print("\nTo go on:")
    print(f"  mlomae export {checkpoints[-1]} OUT --format timm")
    print("  mlomae pretrain --data FOLDER  on images of your own")
    print("  the demo's transfers to three tasks need a checkout of the repository; clone it, then run `make demo`")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mlomae", description="Masked autoencoders with masks learned from feedback.")
    parser.add_argument("--version", action="version", version=f"mlomae {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    pretrain.add_parser(commands)

    p = commands.add_parser("plan", help="what a pretraining will hold, load and compute, from its config alone")
    p.add_argument("config", help="a file of configs/pretrain/")
    p.add_argument("--processes", type=int, default=1, metavar="N", help="of torchrun, one a GPU (default: 1)")
    p.add_argument(
        "--device", default="cpu", metavar="NAME", help="h100, a100, or cpu: this machine's processor (default: cpu)"
    )
    p.add_argument(
        "--share", type=float, metavar="S", help="of the device's peak, for the time (default: 0.4; of a cpu 0.6)"
    )
    p.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override config keys")
    p.set_defaults(run=partial(report, "mlomae.pretraining.plan:plan"))

    plugins = argparse.ArgumentParser(add_help=False)
    plugins.add_argument(
        "--custom-imports", nargs="+", default=[], metavar="MODULE", help="import the plug-ins that the run used"
    )
    trained = argparse.ArgumentParser(add_help=False, parents=[plugins])
    trained.add_argument("checkpoint", type=Path, help="a checkpoint, or a run's folder (its newest one)")
    measured = argparse.ArgumentParser(add_help=False, parents=[trained])
    measured.add_argument("--data", dest="data_root", help="data root, if not the one of the checkpoint's config")

    export.add_parser(commands)

    p = commands.add_parser(
        "evaluate",
        parents=[measured],
        help="k-NN and linear probe of a pretrained encoder; of a transfer, its metrics on the test images",
    )
    p.set_defaults(run=_evaluate)

    known = argparse.ArgumentParser(add_help=False)
    known.add_argument(
        "--objects", metavar="FOLDER", help="masks of objects: a PNG for each image of a folder, under the same name"
    )
    known.add_argument(
        "--object-values", nargs="+", type=int, metavar="V", help="values of objects in them (default: all but 0)"
    )

    p = commands.add_parser(
        "diagnose", parents=[measured, known], help="influence of patches, feedback against chance, health of the mask"
    )
    p.add_argument("--batches", type=int, default=20, metavar="N", help="batches of the t statistic (default: 20)")
    p.add_argument("--batch-size", type=int, default=256, metavar="B", help="images of each level (default: 256)")
    p.add_argument("--feedback", metavar="NAME", help="nca, ridge, ... (default: the run's; nca if it trained no head)")
    p.add_argument(
        "--mask", default="own", metavar="own|random", help="the strategy's masks or uniform ones (default: own)"
    )
    p.add_argument(
        "--out", type=Path, help="folder of influence.png and diagnose.json (default: diagnose, in the run's folder)"
    )
    p.set_defaults(run=_diagnose)

    p = commands.add_parser(
        "horizon", parents=[measured], help="whether the influence of one step predicts the effect of many real steps"
    )
    p.add_argument("--steps", type=int, default=200, metavar="H", help="lower steps of a roll-out (default: 200)")
    p.add_argument("--policies", type=int, default=8, metavar="J", help="ways to weight patches (default: 8)")
    p.add_argument("--strength", type=float, default=0.5, metavar="E", help="weights are 1 + E s (default: 0.5)")
    p.add_argument("--feedback", metavar="NAME", help="nca or ridge (default: the run's; nca if that has a head)")
    p.add_argument("--lr", type=float, help="learning rate (default: the one of the checkpoint)")
    p.add_argument("--repeats", type=int, default=1, metavar="R", help="sets of batches, for errors (default: 1)")
    p.add_argument("--batches", type=int, default=10, metavar="N", help="batches of the prediction (default: 10)")
    p.add_argument(
        "--out", type=Path, help="folder of horizon.png and horizon.json (default: horizon, in the run's folder)"
    )
    p.set_defaults(run=_horizon)

    p = commands.add_parser(
        "masks", parents=[plugins, known], help="draw the masks of several strategies on the same images"
    )
    p.add_argument(
        "configs",
        nargs="*",
        type=Path,
        metavar="config",
        help="files of configs/pretrain/: a row each, the model as training begins",
    )
    p.add_argument(
        "--checkpoints",
        nargs="*",
        type=Path,
        default=[],
        metavar="CKPT",
        help="trained models (checkpoints or folders of runs): a row each, in place of their config's",
    )
    p.add_argument(
        "--images", type=Path, metavar="FOLDER", help="pictures of any size (default: the first row's training images)"
    )
    p.add_argument(
        "--data", dest="data_root", metavar="ROOT", help="data root, if not the one of the first row's config"
    )
    p.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture; its numbers go beside it")
    p.add_argument("--count", type=int, default=8, metavar="N", help="images, fewer if there are fewer (default: 8)")
    p.add_argument("--draws", type=int, default=1, metavar="N", help="masks of each strategy (default: 1)")
    p.add_argument("--seed", type=int, default=0, help="which images and which draws (default: 0)")
    p.add_argument("--progress", type=float, metavar="P", help="share of the run in [0, 1), for scheduled strategies")
    p.set_defaults(run=_masks)

    use.add_parsers(commands)
    data.add_parsers(commands)

    if found := from_checkout("benchmarks.commands"):
        found.add_parsers(commands)
    else:
        p = commands.add_parser("demo", help="MAE and MLO-MAE pretrained on embedded data, minutes on a CPU")
        p.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"), help="folder for all that is written")
        p.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (default: 2)")
        p.set_defaults(run=_first_act)
        for name in ("bench", "compare", "suite", "table"):
            p = commands.add_parser(name, help="needs a checkout of the repository", add_help=False)
            p.set_defaults(run=_needs_checkout)

    p = commands.add_parser("doctor", help="versions, devices, back-ends, data sets; says what is wrong")
    p.add_argument(
        "--data", dest="data_root", type=Path, help="folder to look for data sets in (default: MLOMAE_DATA or data)"
    )
    p.set_defaults(run=partial(report, "mlomae.doctor:doctor"))
    return parser


def main(argv: list[str] | None = None) -> int:
    # huge pages (Linux): else the kernel zeroes every large tensor anew in pages of 4 KiB, a fifth of loading's time
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # torch's threads sleep where they wait for each other: while other work has the cores, spinning makes a step of
    # small matrices six times as long (7 s against 1.2 s on two cores that eight processes wanted)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "LOCAL_RANK" in os.environ:  # torch has pages of C++ frames where another rank is lost, which we say in a line
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    # told to end, a run says how to go on, and a suite ends its runs; under torchrun it may be waiting for other ranks
    alone = "LOCAL_RANK" not in os.environ and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if alone else None
    args = argparse.Namespace(command=None)
    try:
        parser = build_parser()  # which imports commands
        args, unknown = parser.parse_known_args(argv)
        if args.run is data.check and not any(option.startswith("-") for option in unknown):  # after a flag
            args.options, unknown = [*args.options, *unknown], []
        rank = os.environ.get("LOCAL_RANK")  # which torch.distributed.launch gives as an option as well
        unknown = [option for option in unknown if option not in (f"--local-rank={rank}", f"--local_rank={rank}")]
        if unknown and args.run is not _needs_checkout:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        if not sys.warnoptions:  # standard error is for what the user can act on, not for what libraries say to us
            warnings.filterwarnings("ignore", module=_LIBRARIES)
        if modules := getattr(args, "custom_imports", None):
            from mlomae.config.plugins import import_plugins

            import_plugins(modules)
        with _loggers(getattr(args, "log_to", [])):
            status: int = args.run(args)
        sys.stdout.flush()  # here, where a reader that has gone is noticed
        return status
    except REFUSABLE as error:
        return refuse(error)
    except KeyboardInterrupt as error:
        again = args.command in ("data", "demo", "suite")
        if reason := str(error):  # a signal has stopped a run (`mlomae.pretraining.stopping`), on all ranks
            if int(os.environ.get("RANK", 0)) == 0:
                print(f"{reason}; {'run it again' if again else 'go on with --resume'}", file=sys.stderr)
            return STOPPED
        remedy = "run it again" if again else "the last checkpoint is intact, go on with --resume"
        print(f"error: interrupted; {remedy}", file=sys.stderr)
        return 130
    finally:
        hush()
        if alone:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
