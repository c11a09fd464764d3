"""`python -m benchmarks.analysis.tables [--records results/runs] [--out results] [--check]`."""

import argparse
import gc
import sys
from pathlib import Path

from benchmarks.analysis.tables.build import build_tables, check_tables
from mlomae.common.errors import exit_status


@exit_status
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis.tables", description="Regenerate the result tables."
    )
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the tables")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is not up to date")
    arguments = parser.parse_args(argv)
    searching = gc.isenabled()
    gc.disable()  # thousands of records refer to nothing in circles, and looking for such takes a while
    try:
        if arguments.check:
            check_tables(arguments.records, arguments.out)
        else:
            print(*build_tables(arguments.records, arguments.out), sep="\n")
    finally:
        if searching:
            gc.enable()


if __name__ == "__main__":
    sys.exit(main())
