"""`python -m benchmarks.tasks.segmentation CONFIG --weights CKPT [--data ROOT]`: transfer to semantic segmentation."""

from __future__ import annotations

import sys

from benchmarks.tasks.segmentation.config import load_config
from mlomae.backbones.command import transfer_main


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, 2 after one line for wrong input, 130 if interrupted."""
    from benchmarks.tasks.segmentation.run import run_transfer  # mmseg takes seconds to import, --help should not

    return transfer_main(
        "segmentation", __doc__.splitlines()[0], load_config, run_transfer, "record, areas.npz, overlays", argv
    )


if __name__ == "__main__":
    sys.exit(main())
