"""`python -m benchmarks.segmentation CONFIG --weights CKPT [--data ROOT]`: one transfer to semantic segmentation."""

from __future__ import annotations

import sys

from benchmarks.segmentation.config import load_config
from benchmarks.transfer.command import transfer_main


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, 2 after one line for wrong input, 130 if interrupted."""
    from benchmarks.segmentation.run import run_transfer  # mmseg takes seconds to import, --help should not

    return transfer_main(
        "segmentation", __doc__.splitlines()[0], load_config, run_transfer, "record, areas.npz, overlays", argv
    )


if __name__ == "__main__":
    sys.exit(main())
