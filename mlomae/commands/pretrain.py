"""`mlomae pretrain`: from a config, or on a folder of images with a recipe that is chosen from what it holds."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlomae.common.console import say
from mlomae.common.errors import ConfigError, DataError, counted
from mlomae.config.text import CONFIG

if TYPE_CHECKING:
    from mlomae.config.schema import PretrainConfig

OWN = ("imagefolder", "pictures")  # types of data sets that are a user's own
_ABOUT = "What `mlomae pretrain --data` has chosen"  # how the docstring of the config begins


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to those of `mlomae`."""
    p = commands.add_parser(
        "pretrain", help="pretrain on a folder of images, or from a config; resume, evaluate, write a record"
    )
    p.add_argument("config", nargs="?", help="a file of configs/pretrain/, or one of your own; without it, see --data")
    p.add_argument(
        "--data",
        metavar="FOLDER",
        help="without a config: images in class folders, in train and val folders, or without labels; a recipe is "
        "chosen from what is found. With a config: sets data.train.root and data.eval.root",
    )
    p.add_argument(
        "--method", default="mae", help="without a config: mae, or learned, which needs labels (default: mae)"
    )
    p.add_argument("--no-labels", action="store_true", help="without a config: take all images in and below FOLDER")
    p.add_argument(
        "--work-dir", type=Path, help="where checkpoints, pictures and the record go (default: work_dirs/NAME_seedN)"
    )
    p.add_argument("--seed", type=int, help="default: the config's, or the recipe's")
    p.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the work dir")
    p.add_argument("--records", type=Path, help="also write the record into this folder, e.g. results/runs")
    p.add_argument(
        "--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override keys of the config or the recipe"
    )
    p.add_argument("--log-to", nargs="+", default=[], metavar="NAME", help="beside TensorBoard: wandb, mlflow, trackio")
    p.add_argument("--print-config", action="store_true", help="print the whole configuration that would run, and stop")
    p.add_argument(
        "--dry-run", action="store_true", help="check the data, run a few steps, print memory and time, and stop"
    )
    p.set_defaults(run=pretrain)


def pretrain(args: argparse.Namespace) -> int:
    """Run the subcommand; the exit status."""
    if not args.config and not args.data:
        raise ConfigError("name the images (`mlomae pretrain --data FOLDER`), or a config of configs/pretrain/")
    given = args.config and Path(args.config)
    if given and given.is_dir():
        raise ConfigError(f"'{given}' is a folder, not a config; for its images: mlomae pretrain --data {given}")
    if given and given.is_file() and given.suffix not in (".py", ".yaml", ".yml", ".json"):
        raise ConfigError(f"'{given}' is no config (.py, .yaml, .json); for images: mlomae pretrain --data FOLDER")
    if not args.print_config:
        say(f"pretraining {f'from {args.config}' if args.config else f'on the images in {args.data}'}")
    config, lines, text = _given(args) if args.config else _chosen(args)
    work_dir = args.work_dir or Path(f"work_dirs/{config.name}_seed{config.seed}")
    if args.print_config:
        from mlomae.config.text import config_text

        print(config_text(config.to_dict()), end="")
        return 0
    for line in lines:
        say(line)
    try:
        return _run(args, config, work_dir, text)
    except DataError as error:
        kind = config.data.train.get("type")
        if args.config and args.data and kind not in OWN and str(error).startswith(f"{kind}: "):
            raise DataError(f"{error}; for images of your own, leave the config out: {_own(args)}") from error
        raise


def _run(args: argparse.Namespace, config: "PretrainConfig", work_dir: Path, text: str) -> int:
    if args.dry_run:
        from mlomae.pretraining.dry_run import dry_run

        for line in dry_run(config, work_dir):
            say(line)
        return 0
    from mlomae.pretraining.introduction import conclusion, introduction
    from mlomae.pretraining.run import run_pretraining

    def announce(data: Any, model: Any) -> None:
        if text:
            _keep(text, work_dir / CONFIG)
        for line in introduction(config, data, model, work_dir, CONFIG if text else ""):
            say(line)

    record = run_pretraining(config, work_dir, args.resume, args.records, announce)
    if record:
        for line in conclusion(record, config, work_dir):
            say(line, wrap=not line.startswith(" "))  # commands are there to be copied
    return 0


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    from mlomae.config.strict import overrides

    return overrides(args.cfg_options) | ({} if args.seed is None else {"seed": args.seed})


def _own(args: argparse.Namespace) -> str:
    return f"mlomae pretrain --data {args.data}"


def _given(args: argparse.Namespace) -> "tuple[PretrainConfig, list[str], str]":
    """The configuration of a file, lines about it, and its text where it is to be kept."""
    from mlomae.common.registry import options_of
    from mlomae.config.merging import register_types
    from mlomae.config.schema import load_config
    from mlomae.data.registry import find_dataset

    if args.method != "mae" or args.no_labels:
        raise ConfigError("--method and --no-labels are for --data FOLDER without a config; leave one of the two out")
    config = load_config(args.config, _changes(args))
    if args.data:
        register_types()
    for source in (config.data.train, config.data.eval) if args.data else ():
        if source is None:
            continue
        if "root" not in (options_of(source.get("type")) or {"root"}):
            kind, remedy = source["type"], f"for your own images: {_own(args)}"
            if parts := find_dataset(kind).made_of:
                roots = " ".join(f"data.train.{part}.root=FOLDER" for part in parts)
                remedy = f"set --cfg-options {roots}, and the same of data.eval"
            raise ConfigError(f"--data: data set '{kind}' has no folder of its own; {remedy}")
        source["root"] = args.data
    return config, [], ""


def _chosen(args: argparse.Namespace) -> "tuple[PretrainConfig, list[str], str]":
    """The configuration that is chosen for the images of a folder; of a run that is to be resumed, its own."""
    import torch

    from mlomae.config.schema import config_from_dict, load_config
    from mlomae.config.strict import check_name, merged
    from mlomae.config.text import config_text, is_another
    from mlomae.data.found import look_into
    from mlomae.pretraining.recipe import FEW, choose_recipe

    changes = _changes(args)
    found = look_into(args.data, labels=not args.no_labels)
    recipe = choose_recipe(found, args.method, torch.cuda.is_available())
    values = merged(recipe.values, changes)
    check_name(values["name"])
    config = config_from_dict(values)
    kept = (args.work_dir or Path(f"work_dirs/{config.name}_seed{config.seed}")) / CONFIG
    if args.resume and kept.is_file():
        before = load_config(kept, changes)
        if (before.data.train, before.method) != (config.data.train, config.method):
            raise ConfigError(
                f"'{kept}' is of {before.method} on {before.data.train['root']}, not of {config.method} on "
                f"{config.data.train['root']}; give these, or another --work-dir"
            )
        return before, [f"found: {found.describe()}", f"recipe: the one in {kept}"], ""
    if is_another(kept, _ABOUT):
        raise ConfigError(f"'{kept}' is another config, which would be replaced; name another folder with --work-dir")
    about = [
        f"{_ABOUT} for {found.root}.\n",
        f"Found: {found.describe()}.",
        f"Chosen: {recipe.reason}. The rules: mlomae/pretraining/recipe.py.",
        "Repeat: mlomae pretrain THIS_FILE --work-dir ANOTHER",
    ]
    text = config_text(values, "\n".join(about))
    lines = [f"found: {found.describe()}", f"recipe: {recipe.reason}"]
    if found.total < FEW:
        lines.append(f"note: {counted(found.total, 'image')} teach little; a thousand or more are usual")
    return config, lines, text


def _keep(text: str, path: Path) -> None:
    """Rank 0 writes the config of its run."""
    from mmengine.dist import is_main_process

    from mlomae.common.atomic import write_text

    if is_main_process():
        write_text(path, text)
