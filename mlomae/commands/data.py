"""`mlomae data` and `mlomae records`: check, fetch and write data sets, seal records.

They import what they run when they run, so that --help answers at once.
"""

import argparse
from functools import partial
from pathlib import Path

from mlomae.commands.calling import report
from mlomae.common.errors import ConfigError


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands to those of `mlomae`."""
    p = commands.add_parser("data", help="check a data set on disk, or fetch one")
    data = p.add_subparsers(dest="action", required=True)
    p = data.add_parser(
        "check", help="counts, sizes, damaged, missing and repeated images; status 1 if there are problems"
    )
    p.add_argument(
        "name", metavar="NAME", help="cub200, imagenet, imagefolder, ade20k, scene_folder, coco, coco_folder, ..."
    )
    p.add_argument("root", metavar="ROOT", nargs="?", help="folder of the data set (none for textures)")
    p.add_argument(
        "options",
        metavar="KEY=VALUE",
        nargs="*",
        help="options of the data set as in a config: split=train,val annotations=x_{split}.json ignore=255 ...",
    )
    p.add_argument("--subset", action="store_true", help="accept a consistent part of a published set")
    p.add_argument("--decode", action="store_true", help="measure all images, labels and masks, not a sample")
    p.set_defaults(run=check)
    p = data.add_parser("prepare", help="fetch a data set and verify it, or say which files to fetch from where")
    p.add_argument("name", metavar="NAME", help="cub200, flowers102, cifar10, tiny_imagenet, ade20k, coco, ...")
    p.add_argument("root", metavar="ROOT", help="folder to put it in")
    p.set_defaults(run=partial(report, "mlomae.data.tools:prepare_data"))

    p = data.add_parser("write", help="write textures or on_scenes as files, for transfers: ROOT/scenes and ROOT/coco")
    p.add_argument("config", type=Path, help="a config of a pretraining: its data.train and data.eval are written")
    p.add_argument("root", type=Path, metavar="ROOT", help="folder to put them in")
    p.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override config keys")
    p.set_defaults(run=_write)

    p = commands.add_parser("records", help="digests of records that hold none (those of version 0.1)")
    p = p.add_subparsers(dest="action", required=True).add_parser(
        "seal", help="write their digests into numerics.json, beside their folder: an edited record is refused"
    )
    p.add_argument("again", nargs="*", metavar="RECORD", help="files of the folder that were changed on purpose")
    p.add_argument("--records", type=Path, default=Path("results/runs"), help="their folder (default: results/runs)")
    p.set_defaults(run=_seal)


def check(args: argparse.Namespace) -> int:
    from mlomae.config.strict import overrides

    if args.root and "=" in args.root and not Path(args.root).exists():  # embedded data have no ROOT
        args.root, args.options = None, [args.root, *args.options]
    args.options = overrides(args.options, "after ROOT, `mlomae data check`")
    return report("mlomae.data.tools:check_data", args)


def _write(args: argparse.Namespace) -> int:
    from mlomae.config.schema import load_config
    from mlomae.config.strict import overrides
    from mlomae.data import build_source, write_coco, write_scenes
    from mlomae.data.write import Drawn

    data = load_config(args.config, overrides(args.cfg_options)).data
    if data.eval is None:
        raise ConfigError(f"'{args.config}' has no data.eval; name a config that has")
    drawn: list[Drawn] = []
    for source in (build_source(data.train), build_source(data.eval)):
        if not isinstance(source, Drawn):
            raise ConfigError(f"objects of '{source.name}' are not known to the pixel; textures and on_scenes are")
        drawn.append(source)
    for folder, write, splits in (
        ("scenes", write_scenes, ("training", "validation")),
        ("coco", write_coco, ("train", "val")),
    ):
        print(f"written: {write(args.root / folder, dict(zip(splits, drawn, strict=True)))}")
    return 0


def _seal(args: argparse.Namespace) -> int:
    from mlomae.records import seal_records

    print(seal_records(args.records, args.again))
    return 0
