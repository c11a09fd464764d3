"""SIGTERM and SIGUSR1, which schedulers send before they end or requeue a job, at random moments of a run."""

import json
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from mlomae.common.errors import STOPPED
from tests.stress.harness import Case, Check
from tests.stress.runs import CLASSIFICATION, PRETRAINING, PRETRAINING_FILES, Prepared, differences, newest

WHAT = "a run that a signal ends has status 75, and is resumed to the bits of one that had none"
SAMPLE = 12
EACH = 6  # moments of each run and signal


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for run in (PRETRAINING, PRETRAINING_FILES, CLASSIFICATION):
        prepared = run.prepared(shared)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            for _ in range(EACH):
                moments = [round(chance.uniform(0, 0.7), 3) for _ in range(2)]
                name = f"{run.name}, {number.name}: after {' and '.join(map(str, moments))} of the run"
                yield Case(name, _signalled(prepared, number, [moment * prepared.cpu for moment in moments]))


def _signalled(prepared: Prepared, number: int, moments: list[float]) -> Check:
    def check(folder: Path) -> None:
        for seconds in moments:
            command = prepared.start(folder)
            command.owns(folder / "work")
            time.sleep(seconds)
            command.send(number)
            ended = command.wait()
            if (folder / "work" / "record.json").exists():  # it was done
                break
            assert ended.status == STOPPED, f"status {ended.status}, {ended.last}"
            assert "Traceback" not in ended.err, ended.last
            assert re.fullmatch(r"stopped by .*; go on with --resume", ended.last), ended.last
        prepared.start(folder).wait().well()
        places = (folder, prepared.undisturbed)
        assert not differences(*(torch.load(newest(place))["modules"] for place in places)), "other weights"
        first, second = (json.loads((place / "work" / "record.json").read_text())["metrics"] for place in places)
        assert first == second, "other metrics"

    return check
