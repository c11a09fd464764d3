"""`python -m benchmarks.flops`: see `benchmarks.flops.update`."""

import sys

from benchmarks.flops.update import main

if __name__ == "__main__":
    sys.exit(main())
