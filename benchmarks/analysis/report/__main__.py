"""`python -m benchmarks.analysis.report [--records results/runs] [--out results/report.html]`."""

import argparse
import sys
from pathlib import Path

from benchmarks.analysis.report.page import build_report
from mlomae.common.errors import MlomaeError, refuse


def main(argv: list[str] | None = None) -> int:
    """Command line; 0, or 2 after one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis.report", description="All results on one page."
    )
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--out", type=Path, default=Path("results/report.html"), help="the page")
    arguments = parser.parse_args(argv)
    try:
        print(build_report(arguments.records, arguments.out))
    except MlomaeError as error:
        return refuse(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
