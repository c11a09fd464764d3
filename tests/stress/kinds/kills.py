"""Runs that are killed before a write and at random moments, then resumed.

A full run has `FULL` of the cases, as evenly over the rows as they allow, chosen by the seed.
"""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.stress.faults import die_after, die_at
from tests.stress.harness import Case, Check
from tests.stress.runs import (
    CLASSIFICATION,
    DETECTION,
    PRETRAINING,
    PRETRAINING_FILES,
    SEGMENTATION,
    Prepared,
)

WHAT = "a killed run is resumed to the bits of one that was not, and leaves no file, lock or process behind"
SAMPLE = 50
FULL = 150
RANDOM_MOMENTS = 12
AT_WRITES = (PRETRAINING, CLASSIFICATION, SEGMENTATION)
AT_RANDOM = (PRETRAINING, PRETRAINING_FILES, CLASSIFICATION, SEGMENTATION, DETECTION)


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for run in AT_WRITES:
        prepared = run.prepared(shared)
        for n, write in enumerate(prepared.writes, 1):
            yield Case(f"{run.name}, before a write: {n} ({write})", _at_write(prepared, n))
    for run in AT_RANDOM:
        prepared = run.prepared(shared)
        for i in range(RANDOM_MOMENTS):
            moments = [round(chance.uniform(0, 0.9 * prepared.cpu), 3) for _ in range(1 + i % 3)]
            name = f"{run.name}, at random moments: {', '.join(map(str, moments))} s"
            yield Case(name, _at_moments(prepared, moments))


def _at_write(prepared: Prepared, n: int) -> Check:
    def check(folder: Path) -> None:
        prepared.start(folder, die_at(folder, n), resume=False).wait().killed()
        prepared.ends_as_undisturbed(folder)

    return check


def _at_moments(prepared: Prepared, moments: list[float]) -> Check:
    def check(folder: Path) -> None:
        for seconds in moments:
            ended = prepared.start(folder, die_after(seconds)).wait()
            if ended.status != -signal.SIGPROF:  # what was left to do took less
                ended.well()
        prepared.ends_as_undisturbed(folder)

    return check
