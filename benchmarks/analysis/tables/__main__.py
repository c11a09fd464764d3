"""`python -m benchmarks.analysis.tables`: see `benchmarks.analysis.tables.build`."""

import sys

from benchmarks.analysis.tables.build import main

if __name__ == "__main__":
    sys.exit(main())
