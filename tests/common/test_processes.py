"""Runs as processes: the bar of all, how far each is by its log, and nothing where there is no terminal."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlomae.common import processes
from mlomae.common.console import PERCENT, Stage
from mlomae.common.processes import Progress, start, trained_share

TRAINING = "first loss_lower: 1\n10/40  0:00:03 left  0.1 s/it\n20/40  0:00:02 left\n"


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    """The bars of a terminal that is stood in for, by their labels."""
    shown: dict[str, Stage] = {}

    @contextmanager
    def stage(label: str, total: int) -> Iterator[Stage]:
        assert total == PERCENT
        shown[label] = Stage()
        yield shown[label]

    monkeypatch.setattr(processes, "stage", stage)
    monkeypatch.setattr(processes, "on_terminal", lambda: True)
    monkeypatch.setattr(processes, "POLL", 0.01)
    return shown


def becomes(seen: Callable[[], object], expected: object) -> bool:
    ends = time.monotonic() + 10
    while seen() != expected and time.monotonic() < ends:
        time.sleep(0.01)
    return seen() == expected


def test_the_bar_of_all_follows_the_work_of_each(bars: dict[str, Stage], tmp_path: Path) -> None:
    log, later = tmp_path / "log.txt", tmp_path / "later.txt"
    log.write_text("39/40  of an earlier start\n")
    with Progress("demo", 100.0) as progress:
        with progress.run("a short one", 20.0, tmp_path / "nothing.txt"):
            pass
        with progress.run("a long one", 60.0, log), progress.run("the last", 20.0, later):
            assert becomes(lambda: bars["demo"].done, 20)
            assert bars["  a long one"].done == 0
            with log.open("a") as file:
                file.write(TRAINING)
            assert becomes(lambda: bars["  a long one"].done, 50)
            assert becomes(lambda: bars["demo"].done, 20 + 30)
            assert bars["  the last"].done == 0
        assert becomes(lambda: bars["demo"].done, 100)


def test_runs_that_are_expected_later_and_those_of_before_count(bars: dict[str, Stage], tmp_path: Path) -> None:
    with Progress("suite") as progress:
        progress.expect(1.0, done=True)
        progress.expect(1.0)
        assert becomes(lambda: bars["suite"].done, 50)
        progress.expect(2.0)
        assert becomes(lambda: bars["suite"].done, 25)
        with progress.run("the second", 1.0, tmp_path / "log.txt"):
            pass
        assert becomes(lambda: bars["suite"].done, 50)


def test_a_run_that_fails_counts_as_done(bars: dict[str, Stage], tmp_path: Path) -> None:
    with Progress("demo", 2.0) as progress:
        with pytest.raises(RuntimeError), progress.run("a", 1.0, tmp_path / "log.txt"):
            raise RuntimeError
        assert becomes(lambda: bars["demo"].done, 50)


@pytest.mark.parametrize(
    ("log", "share"),
    [("", 0.0), (TRAINING, 0.5), ("7/0  \n", 1.0), ("loss 1/2  \n", 0.0), (TRAINING + "no iteration\n", 0.5)],
)
def test_how_far_a_run_is_by_its_log(log: str, share: float, tmp_path: Path) -> None:
    assert trained_share(tmp_path / "missing.txt") == 0.0
    path = tmp_path / "log.txt"
    path.write_text("x" * 10_000 + "\n" + log)
    assert trained_share(path) == share


def test_nothing_is_shown_elsewhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Progress("demo", 1.0) as progress, progress.run("a", 1.0, tmp_path / "log.txt"):
        pass
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_asked_to_end_takes_its_time_and_ignores_signals_of_users(tmp_path: Path) -> None:
    words = """
import signal, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
print(*(signal.getsignal(number).name for number in (signal.SIGUSR1, signal.SIGUSR2)), flush=True)
while not asked:
    time.sleep(0.01)
time.sleep(1.0)
raise SystemExit(10 + len(asked))
"""
    log, asked = tmp_path / "log.txt", threading.Event()
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(start, [sys.executable, "-c", words], log, asked=asked)
        said = becomes(lambda: log.is_file() and log.read_text(), "SIG_IGN SIG_IGN\n")
        asked.set()
        assert said
        assert ended.result(timeout=30) == 11, "told once"
