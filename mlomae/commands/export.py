"""`mlomae export`: a model for other libraries, as a file or a folder, or for a model hub."""

import argparse
from pathlib import Path

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
        help="write a pretrained encoder or a fine-tuned classifier for other libraries",
        epilog="huggingface-mae has the decoder, too; onnx and torch-export compute features or logits.",
    )
    p.add_argument("checkpoint", type=Path, help="a run's folder, a checkpoint, or weights of another library")
    p.add_argument("out", type=Path, help="a file (OUT.safetensors, .pth, .onnx, .pt2), or a folder")
    p.add_argument("--format", default="safetensors", choices=FORMATS, help="default: %(default)s")
    p.add_argument("--pooling", choices=["avg", "token"], help="of features that are computed (default: the measured)")
    p.add_argument("--num-heads", type=int, metavar="N", help="of weights that do not say it")
    p.add_argument("--custom-imports", nargs="+", default=[], metavar="MODULE", help="import the run's plug-ins")
    p.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from mlomae.backbones.export import export
    from mlomae.backbones.load import export_transfer
    from mlomae.commands.use import register_tasks

    register_tasks()
    if report := export_transfer(args.checkpoint, args.out, args.format):  # a whole segmenter or detector
        print(report)
        return 0
    print(export(args.checkpoint, args.out, args.format, pooling=args.pooling, num_heads=args.num_heads))
    return 0
