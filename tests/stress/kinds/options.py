"""Configurations of the helper `bad_options`: one option of a pretraining, a mask, a feedback, ... of another type.

There are some thousands; a full run has `FULL` of them, as evenly over the rows as they allow, chosen by the seed.
"""

import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bad_options

from mlomae.common.errors import MlomaeError
from tests.stress.commands import one_line
from tests.stress.harness import Case, Check

WHAT = "an option of another type is refused in one line before the first step, or the run begins"
SAMPLE = 60
FULL = 300
SECONDS = 60
MEMORY = 8 << 30  # bytes; a huge number must not take the machine with it


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for name, values in bad_options.bad_options():
        section, _, option = name.partition(": ")
        kind, _, which = section.rpartition(" ")
        yield Case(f"{kind or 'pretraining'}: {which}, {option}", _refused_or_begins(values), SECONDS)


def _refused_or_begins(values: dict[str, Any]) -> Check:
    def check(folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(SECONDS)
        try:
            bad_options.begin(values, folder / "work")
        except MlomaeError as error:
            one_line(error)

    return check
