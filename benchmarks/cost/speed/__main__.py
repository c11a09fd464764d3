"""`python -m benchmarks.cost.speed`: see `benchmarks.cost.speed.run`."""

import sys

from benchmarks.cost.speed.run import main

if __name__ == "__main__":
    sys.exit(main())
