"""`python -m benchmarks.tasks.detection CONFIG --weights CKPT [--data ROOT]`: one transfer to object detection."""

from __future__ import annotations

import sys

from benchmarks.tasks.detection.config import load_config
from mlomae.backbones.command import transfer_main


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, 2 after one line for wrong input, 130 if interrupted."""
    from benchmarks.tasks.detection.run import run_transfer  # mmdet takes seconds to import, --help should not

    outputs = "record, detections.json, overlays"
    return transfer_main("detection", __doc__.splitlines()[0], load_config, run_transfer, outputs, argv)


if __name__ == "__main__":
    sys.exit(main())
