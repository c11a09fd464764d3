"""The command line of one transfer: `python -m benchmarks.TASK CONFIG --weights CKPT [--data ROOT]`.

A wrong input is one line on standard error and ends with status 2, without a traceback unless MLOMAE_TRACEBACK is set.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlomae.backbones.origin import describe_weights
from mlomae.common.errors import MlomaeError, refuse
from mlomae.config.strict import overrides
from mlomae.records import slug


def build_parser(task: str, title: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.tasks.{task}", description=title)
    parser.add_argument("config", help=f"a file of configs/{task}/")
    parser.add_argument(
        "--weights",
        help="backbone: a checkpoint or export of ours, official MAE weights, timm:NAME[:pretrained], random[:PATH]",
    )
    parser.add_argument("--data", help="data root: sets data.train.root and data.test.root")
    parser.add_argument("--seed", type=int, help="default: the seed of the backbone's pretraining, else the config's")
    parser.add_argument("--work-dir", help="where checkpoints and results go (default: work_dirs/NAME_METHOD_seedN)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the work dir")
    parser.add_argument("--records", help="also write the record into this folder, predictions beside it: results/runs")
    parser.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override config keys")
    return parser


def _run(args: argparse.Namespace, load_config: Callable, run_transfer: Callable, outputs: str) -> int:
    options = overrides(args.cfg_options)
    if args.weights:
        options["backbone.weights"] = args.weights
    if args.seed is not None:
        options["seed"] = args.seed
    config = load_config(args.config, options)
    if args.data:
        config.data.train["root"] = config.data.test["root"] = args.data
    origin = describe_weights(config.backbone.weights or "random")
    if origin.seed is not None and "seed" not in options:
        config.seed = origin.seed
    work_dir = Path(args.work_dir or f"work_dirs/{config.name}_{slug(origin.method)}_seed{config.seed}")
    records = Path(args.records) if args.records else None
    record: dict[str, Any] = run_transfer(config, work_dir, args.resume, records, origin)
    if record:
        for name, value in record["metrics"].items():
            if isinstance(value, int | float):
                print(f"{name:24s} {value:.4g}")
        print(f"{outputs}: {work_dir}")
    return 0


def transfer_main(
    task: str, title: str, load_config: Callable, run_transfer: Callable, outputs: str, argv: list[str] | None
) -> int:
    """Exit status of the command line of ``task``; ``outputs`` names what lies in the run's folder when it is done."""
    args = build_parser(task, title).parse_args(argv)
    try:
        return _run(args, load_config, run_transfer, outputs)
    except MlomaeError as error:
        return refuse(error)
    except OSError as error:
        if os.environ.get("MLOMAE_TRACEBACK"):
            raise
        print(f"error: {error}; check the path, its permissions and the free disk space", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; checkpoints are intact, go on with --resume", file=sys.stderr)
        return 130
