"""`python -m benchmarks.classification CONFIG --weights CKPT [--data ROOT]`: one transfer to classification.

A wrong input is one line on standard error and ends with status 2, without a traceback unless MLOMAE_TRACEBACK is set.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mlomae.cli import overrides
from mlomae.errors import MlomaeError, refuse


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classification", description=__doc__.splitlines()[0])
    parser.add_argument("config", help="a file of configs/classification/")
    parser.add_argument(
        "--weights",
        help="backbone: a checkpoint or export of ours, official MAE weights, timm:NAME[:pretrained], random[:PATH]",
    )
    parser.add_argument("--data", help="data root: sets data.train.root and data.test.root")
    parser.add_argument("--seed", type=int, help="default: the seed of the backbone's pretraining, else the config's")
    parser.add_argument("--work-dir", help="where checkpoints and results go (default: work_dirs/NAME_METHOD_seedN)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the work dir")
    parser.add_argument("--records", help="also write the record into this folder, e.g. results/runs")
    parser.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override config keys")
    return parser


def run(args: argparse.Namespace) -> int:
    from benchmarks.classification.config import load_config
    from benchmarks.classification.origin import describe_weights
    from benchmarks.classification.run import run_transfer
    from benchmarks.records import slug

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
    record = run_transfer(config, work_dir, args.resume, records, origin)
    if record:
        for name, value in record["metrics"].items():
            print(f"{name:24s} {value:.4g}")
        print(f"record, predictions, confusion matrix: {work_dir}")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        return run(args)
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


if __name__ == "__main__":
    sys.exit(main())
