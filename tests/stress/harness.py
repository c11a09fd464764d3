"""Cases in forked processes, a few at a time: one that hangs is ended, one that leaves processes behind has failed.

Everything is imported once, in the process that forks, and nothing is computed there, so that a case costs what it does
and not the seconds of importing torch.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[Path], None]
GRACE = 10.0  # seconds in which a worker notices that its run is dead: torch's look every five


@dataclass(frozen=True)
class Case:
    """``check`` gets an empty folder and raises AssertionError, or anything else, unless all is as promised.

    ``name``: the row of the table, a colon, and what tells it from the row's other cases. ``seconds``: after which it
    hangs.
    """

    name: str
    check: Check
    seconds: float = 120.0

    @property
    def row(self) -> str:
        return self.name.partition(": ")[0]


@dataclass(frozen=True)
class Result:
    """``fault``: one line, None for a case that has passed."""

    case: Case
    seconds: float
    fault: str | None


@dataclass
class _Running:
    case: Case
    folder: Path
    began: float
    ended: float | None = None
    fault: str | None = None


def sample(cases: Iterable[Case], count: int, chance: random.Random) -> list[Case]:
    """``count`` of the cases in their order, as evenly over the rows as they allow."""
    cases = list(cases)
    rows: dict[str, list[Case]] = defaultdict(list)
    for case in chance.sample(cases, len(cases)):
        rows[case.row].append(case)
    chosen: set[str] = set()
    while len(chosen) < min(count, len(cases)):
        for row in rows.values():
            if row and len(chosen) < count:
                chosen.add(row.pop().name)
    return [case for case in cases if case.name in chosen]


def run(cases: Iterable[Case], folder: Path, jobs: int) -> Iterator[Result]:
    """What became of each case, in the order in which they end. Folders of those that failed stay in ``folder``."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # no case outlives this process
    waiting, running, number = iter(cases), dict[int, _Running](), 0
    more = True
    try:
        while more or running:
            while more and len(running) < jobs:
                case = next(waiting, None)
                more = case is not None
                if case is not None:
                    number += 1
                    place = folder / f"{number}"
                    shutil.rmtree(place, ignore_errors=True)
                    place.mkdir(parents=True)
                    running[_fork(case, place)] = _Running(case, place, time.monotonic())
            for pid in list(running):
                if _look(pid, state := running[pid]):
                    del running[pid]
                    yield Result(state.case, (state.ended or 0.0) - state.began, state.fault)
                    if state.fault is None:
                        shutil.rmtree(state.folder, ignore_errors=True)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
        for pid in running:
            _end(pid)


def _fork(case: Case, folder: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(f"{folder}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        write_to(output, output)
        case.check(folder)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def write_to(out: int, err: int) -> None:
    """Standard output and error of this process, its children and its libraries go to these descriptors."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, errors="replace") for number in (1, 2))


def _look(pid: int, state: _Running) -> bool:
    """Whether a case and all its processes have ended; they are made to once their time is over."""
    now = time.monotonic()
    if state.ended is None:
        done, status = os.waitpid(pid, os.WNOHANG)
        if not done and now < state.began + state.case.seconds:
            return False
        state.ended = now
        if not done:
            _end(pid)
            state.fault = f"hangs: not at its end after {state.case.seconds:.0f} s"
        elif status:
            output = Path(f"{state.folder}.txt").read_text(errors="replace").strip().splitlines()
            state.fault = next((line for line in reversed(output) if line.strip()), f"ended with status {status}")
    left = members(pid)
    if left and state.fault is None and now < state.ended + GRACE:
        return False
    if left:
        state.fault = state.fault or f"leaves processes behind: {', '.join(map(str, left))}"
        _end(pid)
    if state.fault is None:
        Path(f"{state.folder}.txt").unlink(missing_ok=True)
    return True


def members(session: int) -> list[int]:
    """The living processes of a session; none where there is no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX" and int(fields[3]) == session:
            found.append(int(path.parent.name))
    return found


def _end(session: int) -> None:
    for pid in {session, *members(session)}:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
