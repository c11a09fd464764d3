"""Data parallel runs of two processes that have other data, seeds or options, or of which one dies or stops.

A full run has `FULL` of the cases, as evenly over the rows as they allow, chosen by the seed: some wait for a minute.
"""

import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from layouts import write_image

from tests.stress.commands import Command, Ended
from tests.stress.harness import Case, Check
from tests.stress.runs import CLASSIFICATION_FILES, PRETRAINING_FILES, Prepared

WHAT = "processes that differ stop before the first step, and one that dies or stops ends the others within a minute"
SAMPLE = 8
FULL = 20
TOGETHER = 60.0  # seconds


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for run in (PRETRAINING_FILES, CLASSIFICATION_FILES):
        prepared = run.prepared(shared)
        for name, differ in DIFFERENCES.items():
            yield Case(f"{run.name}, processes differ: {name}", _differ(prepared, differ), 200)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            for moment in (round(chance.uniform(0.1, 0.9), 2) for _ in range(3)):
                name = f"{run.name}, one of two: {number.name} after {moment} of the run, process "
                for rank in range(2):
                    yield Case(f"{name}{rank}", _lost(prepared, number, moment * prepared.cpu, rank), 200)


def ranks(commands: list[list[str]]) -> list[Command]:
    """The commands with the environment that torchrun gives its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def arm(rank: int) -> Callable[[], None]:
        def call() -> None:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(len(commands))}
            os.environ |= {"WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            torch.set_num_threads(1)

        return call

    return [Command(*command, arm=arm(rank)) for rank, command in enumerate(commands)]


def _differ(prepared: Prepared, differ: Callable[[Path], list[str]]) -> Check:
    """The second process gets a copy of configuration and data that ``differ`` changes, and the options it returns."""

    def check(folder: Path) -> None:
        config = Path(prepared.argv[-1])
        own = folder / config.parent.name if config.parent.name == "classification" else folder / "own"
        base = config.parent.parent if config.parent.name == "classification" else config.parent
        own.mkdir()
        for path in (base / "data").rglob("*.jpg"):
            target = folder / "data" / path.relative_to(base / "data")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        (own / config.name).write_text(config.read_text().replace(str(base / "data"), str(folder / "data")))
        options, work = differ(folder / "data"), ["--work-dir", str(folder / "work")]
        started = ranks([[*prepared.argv, *work], [*prepared.argv[:-1], str(own / config.name), *work, *options]])
        ends = [command.wait(TOGETHER) for command in started]
        assert all(ended.status > 0 for ended in ends), f"statuses {[ended.status for ended in ends]}"
        _some_line(ends)
        assert not (folder / "work" / "record.json").exists(), "there is a record"

    return check


def _lost(prepared: Prepared, number: int, seconds: float, rank: int) -> Check:
    def check(folder: Path) -> None:
        started = ranks([[*prepared.argv, "--work-dir", str(folder / "work")]] * 2)
        started[0].owns(folder / "work")  # until all have met they wait for ten minutes
        time.sleep(seconds)
        lost, other = started[rank], started[1 - rank]
        try:
            lost.send(number)
            ended = other.wait(TOGETHER)
        finally:
            lost.send(signal.SIGKILL)
        if ended.status:  # it was not done yet
            _some_line([ended])
        lost.wait()

    return check


def _some_line(ends: list[Ended]) -> None:
    for ended in ends:
        assert "Traceback" not in ended.err, f"traceback: {ended.last}"
    lines = [line for ended in ends for line in ended.err.splitlines() if re.match("error: ", line)]
    assert 1 <= len(lines) <= len(ends), f"{len(lines)} lines begin with error: {ends[-1].last}"


# --- how the second process differs -----------------------------------------------------------------------------------


def _other_pixels(root: Path) -> list[str]:
    for _ in range(64):  # the generator of images counts, and the first ones are those that are there
        write_image(root / "train" / "auk" / "0.jpg", (16, 16))
    return []


def _fewer(root: Path) -> list[str]:
    (root / "train" / "auk" / "0.jpg").unlink()
    return []


def _other_name(root: Path) -> list[str]:
    (root / "train" / "auk" / "0.jpg").rename(root / "train" / "auk" / "zz.jpg")
    return []


DIFFERENCES: dict[str, Callable[[Path], list[str]]] = {
    "other pixels": _other_pixels,
    "fewer images": _fewer,
    "another order of images": _other_name,
    "another seed": lambda root: ["--cfg-options", "seed=1"],
    "another batch": lambda root: ["--cfg-options", "data.batch_size=4"],
}
