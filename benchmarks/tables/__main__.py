"""`python -m benchmarks.tables`: see `benchmarks.tables.build`."""

import sys

from benchmarks.tables.build import main

if __name__ == "__main__":
    sys.exit(main())
