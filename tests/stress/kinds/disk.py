"""Disks that are full, read-only or gone, from the n-th write on, and files that end before they are whole.

A full run has `FULL` of the cases, as evenly over the rows as they allow, chosen by the seed.
"""

import errno
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mlomae.common.checkpoint import check_intact, list_checkpoints
from mlomae.common.errors import MlomaeError
from tests.stress.commands import Ended
from tests.stress.faults import fail_at, on_writes
from tests.stress.harness import Case, Check
from tests.stress.runs import CLASSIFICATION, PRETRAINING, SEGMENTATION, Prepared

WHAT = "a write that fails is one line or does not matter; earlier checkpoints are whole, and a resume ends as ever"
SAMPLE = 50
FULL = 150
CODES = {"full": errno.ENOSPC, "read-only": errno.EROFS, "input/output error": errno.EIO}
SIZES = (0, 1, 100, 1_000, 4_000, 10_000, 30_000, 60_000, 100_000, 200_000)  # bytes after which no file grows


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for run in (PRETRAINING, CLASSIFICATION, SEGMENTATION):
        prepared = run.prepared(shared)
        for n, write in enumerate(prepared.writes, 1):
            kind, code = chance.choice(list(CODES.items()))
            yield Case(f"{run.name}, fails once: {n} ({write}), {kind}", _fails(prepared, code, n, n))
            kind, code = chance.choice(list(CODES.items()))
            yield Case(f"{run.name}, fails from there on: {n} ({write}), {kind}", _fails(prepared, code, n))
        for n in sorted(chance.sample(range(4, len(prepared.writes)), 8)):
            yield Case(f"{run.name}, folder removed: before write {n}", _removed(prepared, n))
        for size in SIZES:
            yield Case(f"{run.name}, files end: at {size} bytes", _too_large(prepared, size))


def _fails(prepared: Prepared, code: int, first: int, last: int | None = None) -> Check:
    return _stopped_and_resumed(prepared, lambda folder: fail_at(folder, code, first, last))


def _too_large(prepared: Prepared, size: int) -> Check:
    """The system lets no file grow beyond ``size``, which cuts a write short as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return _stopped_and_resumed(prepared, lambda folder: limit)


def _stopped_and_resumed(prepared: Prepared, arm: Callable[[Path], Callable[[], None]]) -> Check:
    def check(folder: Path) -> None:
        _one_line_or_well(prepared.start(folder, arm(folder), resume=False).wait())
        for path in list_checkpoints(folder / "work"):
            check_intact(path)
        prepared.ends_as_undisturbed(folder)

    return check


def _one_line_or_well(ended: Ended) -> None:
    if ended.status:
        ended.refused()
    else:
        ended.well()


def _removed(prepared: Prepared, n: int) -> Check:
    def check(folder: Path) -> None:
        def remove(at: int, event: str, path: str) -> None:
            if at == n:
                shutil.rmtree(folder / "work")

        _one_line_or_well(prepared.start(folder, lambda: on_writes(folder, remove), resume=False).wait())
        for path in list_checkpoints(folder / "work"):
            try:
                check_intact(path)
            except MlomaeError as error:
                raise AssertionError(f"half a checkpoint: {error}") from error

    return check
