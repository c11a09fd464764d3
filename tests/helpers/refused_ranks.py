"""``python refused_ranks.py CONFIG WORK [REFUSAL]``: a rank; number 0 checks its images for long, and may refuse them.

Times are shorter than in earnest: rank 0 works alone for longer than a rank may be silent.
"""

import os
import sys
import time
from unittest import mock

os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as `main` does, before torch is imported

from mlomae.cli import main
from mlomae.common.errors import DataError
from mlomae.pretraining import run, watch

watch.PERIOD, watch.SILENCE, watch.GRACE = 0.3, 5.0, 1.0
check = run.check_disjoint


def long_check(*args: object) -> object:
    assert os.environ["RANK"] == "0"
    time.sleep(9.0)
    if sys.argv[3:]:
        raise DataError(sys.argv[3])
    return check(*args)  # type: ignore[arg-type]


with mock.patch.object(run, "check_disjoint", long_check):
    status = main(["pretrain", sys.argv[1], "--work-dir", sys.argv[2]])
sys.stderr.flush()
os._exit(status)  # gloo's threads now and then abort an ordinary exit
