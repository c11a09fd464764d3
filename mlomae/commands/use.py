"""`mlomae classify`, `predict` and `embed`: a model of one's own, and models on one's own images.

They import what they run when they run, so that --help answers at once.
"""

import argparse
import importlib
import pkgutil
from pathlib import Path
from typing import Any

from mlomae.common.errors import ConfigError, counted
from mlomae.common.installing import from_checkout
from mlomae.common.registry import check_range

SHOWN = 5  # columns of a table that are printed: the file and two classes


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommands to those of `mlomae`."""
    p = commands.add_parser("classify", help="fine-tune on your own class folders; writes a model for predict and timm")
    p.add_argument(
        "config",
        nargs="?",
        help="a file of configs/classification/, or a run's config.py; without it a recipe is chosen",
    )
    p.add_argument("--data", metavar="FOLDER", help="folders of classes, or train and val folders of them")
    p.add_argument(
        "--weights",
        help="backbone: a run's folder, a checkpoint, an export, weights of another library, hf-hub:OWNER/NAME or "
        "timm:NAME:pretrained",
    )
    p.add_argument(
        "--out",
        "--work-dir",
        dest="work_dir",
        type=Path,
        metavar="DIR",
        help="the run's folder (default: in work_dirs)",
    )
    p.add_argument("--seed", type=int, help="default: 0, or the one of a config")
    p.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the folder")
    p.add_argument("--cfg-options", nargs="*", default=[], metavar="KEY=VALUE", help="override what was chosen")
    p.add_argument("--custom-imports", nargs="+", default=[], metavar="MODULE", help="import plug-ins")
    p.set_defaults(run=_classify, records=None)

    p = commands.add_parser(
        "predict",
        help="labels and probabilities, masks or boxes of new images by a trained model",
        epilog="A CSV has a row for each image: file, predicted, probability, then the next best classes. Of a "
        "segmenter or a detector, masks or boxes and pictures of them are written into a folder.",
    )
    p.add_argument("model", type=Path, help="the folder of a run, a checkpoint, or a folder that timm reads")
    p.add_argument("images", nargs="+", metavar="IMAGE", help="files, and folders with all images in and below them")
    p.add_argument("--out", type=Path, help="FILE.csv (default: printed); of a segmenter or a detector a folder")
    p.add_argument("--threshold", type=float, metavar="P", help="lowest score of a detection that is drawn")
    p.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (default: 64)")
    p.add_argument("--custom-imports", nargs="+", default=[], metavar="MODULE", help="import plug-ins")
    p.set_defaults(run=_predict)

    p = commands.add_parser("embed", help="features of the images in a folder, with the names of their files")
    p.add_argument("weights", help="backbone, as --weights of classify")
    p.add_argument("images", nargs="+", metavar="FOLDER", help="folders, with all images in and below them, and files")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.npz or FILE.parquet")
    p.add_argument(
        "--pooling", default="avg", choices=["avg", "cls"], help="mean of the patch tokens (default), or class token"
    )
    p.add_argument("--img-size", type=int, metavar="PIXELS", help="default: that of the weights")
    p.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (default: 64)")
    p.set_defaults(run=_embed)


def register_tasks() -> None:
    """Register the tasks of the core and, in a checkout, the others."""
    importlib.import_module("mlomae.classification")
    from_checkout("benchmarks.tasks")


def _classify(args: argparse.Namespace) -> int:
    if not args.config and not args.data:
        raise ConfigError("name the images: mlomae classify --data FOLDER --weights W")
    if args.config and Path(args.config).is_dir():
        raise ConfigError(f"'{args.config}' is a folder; say --data {args.config}")
    register_tasks()
    from mlomae.backbones.task import get_task
    from mlomae.backbones.transfer import transfer
    from mlomae.classification.classify import check_place, classify, report, write_model
    from mlomae.config.strict import overrides

    if args.config:
        if args.work_dir:
            check_place(args.work_dir, chosen=False)
        record, out = transfer(get_task("classification"), args)
        fine_tuned = record.get("config", {}).get("protocol") == "finetune"
        if fine_tuned:
            write_model(out)
            print("\n".join(report(record, out)))
        return 0
    if not args.weights:
        raise ConfigError(
            "name the backbone with --weights: the folder of a run of `mlomae pretrain --data FOLDER`, or timm's, as "
            "in timm:vit_small_patch16_224:pretrained"
        )
    options = overrides(args.cfg_options)
    classify(args.data, args.weights, args.work_dir, options, seed=args.seed or 0, resume=args.resume, say=print)
    return 0


def _predict(args: argparse.Namespace) -> int:
    register_tasks()
    from mlomae.backbones.finetuned import is_timm_folder, model_place
    from mlomae.backbones.load import load_transfer

    place = model_place(args.model)
    if is_timm_folder(place):
        return _label(args, place)
    loaded = load_transfer(place)
    if loaded.task.name == "classification":
        from mlomae.classification.predict import classifier_of

        return _label(args, classifier_of(loaded))
    from mlomae.data.given import given_images

    if loaded.task.predictor is None:
        raise ConfigError(f"the task '{loaded.task.name}' of '{args.model}' has no way to show what it predicts")
    if args.out is None or args.out.suffix:
        raise ConfigError(f"a model of {loaded.task.name} writes a folder; name it: --out FOLDER")
    if args.threshold is not None:
        check_range("", "[0, 1]", threshold=args.threshold)
    images = given_images(args.images)
    print(f"written: {pkgutil.resolve_name(loaded.task.predictor)(loaded, images, args.out, args.threshold)}")
    return 0


def _label(args: argparse.Namespace, classifier: Any) -> int:
    """Predict with a classifier, or the one in a folder."""
    from mlomae.classification.predict import predict_files
    from mlomae.classification.table import write_table

    if args.out and args.out.suffix != ".csv":
        raise ConfigError(f"--out '{args.out}' must end in .csv")
    table = predict_files(classifier, args.images, args.batch_size)
    if args.out:
        write_table(table, args.out)
        print(f"written: {args.out} ({counted(len(table), 'image')})")
        return 0
    print(table.iloc[:, :SHOWN].to_string(index=False, float_format=lambda p: f"{100 * p:.1f} %"))
    return 0


def _embed(args: argparse.Namespace) -> int:
    from mlomae.backbones.embed import embed_files

    images, width = embed_files(
        args.weights,
        args.images,
        args.out,
        pooling=args.pooling,
        img_size=args.img_size,
        batch_size=args.batch_size,
    )
    print(f"written: {args.out} ({counted(images, 'image')}, {width} features of each)")
    return 0
