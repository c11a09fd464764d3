"""`python -m benchmarks.cost.flops`: see `benchmarks.cost.flops.update`."""

import sys

from benchmarks.cost.flops.update import main

if __name__ == "__main__":
    sys.exit(main())
