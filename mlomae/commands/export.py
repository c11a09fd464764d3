"""`mlomae export`: a model for other libraries, as a file or a folder, or for a model hub."""

import argparse
from pathlib import Path

from mlomae.common.errors import ConfigError

FORMATS = (
    "safetensors",
    "timm",
    "huggingface",
    "huggingface-mae",
    "openmmlab",
    "mmseg",
    "mmdet",
    "onnx",
    "torch-export",
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to those of `mlomae`."""
    p = commands.add_parser(
        "export",
        help="write a pretrained encoder or a fine-tuned model for other libraries",
        epilog="huggingface-mae has the decoder, too; onnx and torch-export compute features or logits.",
    )
    p.add_argument("checkpoint", type=Path, help="a run's folder, a checkpoint, or weights of another library")
    p.add_argument("out", type=Path, help="a file (OUT.safetensors, .pth, .onnx, .pt2) or a folder, as the format asks")
    p.add_argument("--format", choices=FORMATS, help="default: safetensors, with --hub timm")
    p.add_argument(
        "--pooling", choices=["avg", "token"], help="of computed features (default: that of the measured numbers)"
    )
    p.add_argument("--num-heads", type=int, metavar="N", help="attention heads, for weights that do not say")
    p.add_argument(
        "--hub",
        metavar="OWNER/NAME",
        help="write the folder OUT with a model card from the run's record; sends nothing",
    )
    p.add_argument("--push", action="store_true", help="with --hub: upload OUT there, into a private repository")
    p.add_argument("--public", action="store_true", help="with --push: a new repository is public")
    p.add_argument(
        "--license", dest="licence", metavar="ID", help="of the weights, for the card (default: none stated)"
    )
    p.add_argument("--record", type=Path, metavar="FILE", help="for the card (default: record.json of the run)")
    p.add_argument("--records", type=Path, metavar="FOLDER", help="for the card: records of the other seeds")
    p.add_argument("--custom-imports", nargs="+", default=[], metavar="MODULE", help="import the run's plug-ins")
    p.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    if not args.hub:
        for name in ("push", "public", "licence", "record", "records"):
            if getattr(args, name):
                raise ConfigError(f"--{name.replace('licence', 'license')} is for --hub OWNER/NAME; add it")
        from mlomae.backbones.export import export
        from mlomae.backbones.load import export_transfer, load_transfer
        from mlomae.commands.use import register_tasks
        from mlomae.common.checkpoint import TRANSFER_FORMAT, format_of

        register_tasks()
        fmt, source = args.format or "safetensors", args.checkpoint
        if format_of(source) == TRANSFER_FORMAT:
            source = load_transfer(source)
            if source.task.name != "classification":  # a segmenter or detector
                print(export_transfer(source, args.out, fmt))
                return 0
        print(export(source, args.out, fmt, pooling=args.pooling, num_heads=args.num_heads))
        return 0
    from mlomae.backbones.hub import prepare_model, push

    options = {name: getattr(args, name) for name in ("num_heads", "record", "records", "licence")}
    print(prepare_model(args.checkpoint, args.out, args.hub, args.format or "timm", **options))
    if args.push:
        print(f"pushed    {push(args.out, args.hub, args.public)}")
    else:
        print(f"not sent  look at {args.out}, then add --push")
    return 0
