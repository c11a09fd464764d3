"""``python -m benchmarks.suite.ranks OPTIONS -m MODULE ...``: torchrun, ending with the status of the ranks it started.

torchrun itself ends with 1 whatever they end with, after a page of its own that hides their last line.
"""

import os
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from mlomae.common.errors import STOPPED

PATIENCE = "600"  # seconds that ranks have to write a checkpoint; a scheduler ends them earlier if it must


def main(arguments: list[str]) -> int:
    """`STOPPED` if a signal has ended the ranks, else the status of the one that failed first, 0 if none did."""
    os.environ.setdefault("PET_SHUTDOWN_TIMEOUT", PATIENCE)  # earlier releases of torch do not read it, and give 30
    try:
        run.main(arguments)
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status  # as shells say that a signal has killed it
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
