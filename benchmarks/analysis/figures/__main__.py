"""`python -m benchmarks.analysis.figures [--records results/runs] [--out results/figures] [--only NAME]`

What was drawn and what was skipped, and why, is printed a line each.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.analysis.figures.build import FIGURES, build_figures
from mlomae.common.errors import MlomaeError, refuse


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0, or 2 after one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis.figures", description="Draw the figures from records."
    )
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--masks", type=Path, default=Path("results/masks"), help="folder of what `mlomae masks` wrote")
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder of the figures")
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(FIGURES)}")
    a = parser.parse_args(argv)
    try:
        written, skipped = build_figures(a.records, a.masks, a.out, a.only)
    except MlomaeError as error:
        return refuse(error)
    for line in [*map(str, written), *skipped]:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
