"""`python -m benchmarks.tasks.classification CONFIG --weights CKPT [--data ROOT]`: one transfer to classification."""

from __future__ import annotations

import sys

from benchmarks.tasks.classification.config import load_config
from benchmarks.tasks.classification.run import run_transfer
from mlomae.backbones.command import transfer_main


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, 2 after one line for wrong input, 130 if interrupted."""
    outputs = "record, predictions, confusion matrix"
    return transfer_main("classification", __doc__.splitlines()[0], load_config, run_transfer, outputs, argv)


if __name__ == "__main__":
    sys.exit(main())
