"""One transfer as the command line asks for it: `mlomae bench`, and `mlomae classify` with a configuration."""

import argparse
from pathlib import Path

from mlomae.backbones.provenance import describe_weights
from mlomae.backbones.run import run_transfer
from mlomae.backbones.task import Task
from mlomae.config.strict import overrides
from mlomae.records import Record, slug


def transfer(task: Task, args: argparse.Namespace) -> tuple[Record, Path]:
    """Run ``args.config`` with the options of the command line; the record, {} but on the main process, and the run's
    folder.

    ``args``: config, weights, seed, cfg_options, data, work_dir, resume and records; None or empty where not given.
    """
    options = overrides(args.cfg_options)
    if args.weights:
        options["backbone.weights"] = args.weights
    if args.seed is not None:
        options["seed"] = args.seed
    config = task.load_config(args.config, options)
    for part in (config.data.train, config.data.val, config.data.test) if args.data else ():
        if part is not None:
            part["root"] = args.data
    source = describe_weights(config.backbone.weights or "random")
    if source.seed is not None and "seed" not in options:
        config.seed = source.seed
    work_dir = Path(args.work_dir or f"work_dirs/{config.name}_{slug(source.method)}_seed{config.seed}")
    records = Path(args.records) if args.records else None
    return run_transfer(task, config, work_dir, args.resume, records, source), work_dir
