"""The log of a run: messages, and its numbers as JSON lines and for TensorBoard, in full in its folder and in short on
the console. Only the main process writes."""

import datetime
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from torch import Tensor

from mlomae.common.atomic import write_text
from mlomae.common.console import WIDTH, on_terminal, say
from mlomae.common.errors import counted
from mlomae.data import Images, OuterBatches
from mlomae.pretraining.loggers import Loggers

logger = logging.getLogger("mlomae")
FILE_ONLY = {"short": ""}
"""As ``extra`` of a message: it goes to the file alone."""
FIRST, PATIENCE = 10, 10.0  # iterations, and seconds, after which the time that a run takes is known


class _Console(logging.Handler):
    """Says messages without their time, warnings as such; ``short`` of a message, if it has one, in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        text = getattr(record, "short", record.getMessage())
        if text:
            say(f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text)


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Within the block, the main process's messages go to the terminal and to ``train.log`` in the run's folder."""
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        handlers = [_Console(), logging.FileHandler(folder / "train.log", encoding="utf-8")]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def log_notes(folder: Path, sources: Iterable[Images], *more: str) -> None:
    """Say in the log of a run what a user should know of its data: their notes, and ``more``."""
    notes = [*(f"{images.describe()}: {note}" for images in dict.fromkeys(sources) for note in images.notes()), *more]
    if notes:
        with run_log(folder):
            for note in notes:
                logger.info(note)


def warn(text: str) -> None:
    """A warning before the run's log is open, and before the process group is joined: on standard error, of rank 0."""
    if int(os.environ.get("RANK", 0)) == 0:
        logger.warning(text)


class Scalars:
    """The numbers of a run's log: JSON lines in ``log.jsonl``, the same for `Loggers`, and readable lines, the one on
    the console of at most `WIDTH` characters.

    After a resume at ``done`` iterations, later lines are dropped: they come again. Only the main process writes.
    """

    def __init__(self, folder: Path, done: int, iterations: int, config: Any) -> None:
        self.done, self.iterations = done, iterations
        self.shown = ""  # what the console has said last
        self._first: tuple[int, float] | None = None  # how many were done, and when, after this process's first one
        self.path = folder / "log.jsonl"
        self.writer: Loggers | None = None
        if is_main_process():
            if self.path.exists():
                lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
                write_text(self.path, "".join(line for line in lines if 0 < _step_of(line) <= done))
            self.writer = Loggers(folder, config, done, logger.warning)
        self.since, self.waited = time.perf_counter(), 0.0  # now: opening loggers takes seconds
        self._usual = threading.excepthook
        threading.excepthook = self._failed

    def close(self) -> None:
        try:
            if self.writer is not None:
                self.writer.close()
        finally:
            threading.excepthook = self._usual

    def _failed(self, given: threading.ExceptHookArgs) -> None:
        """A disk that fails TensorBoard's thread gives no traceback: its next call raises the error in ours."""
        if given.exc_type is None or not issubclass(given.exc_type, OSError):
            self._usual(given)

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches, and count the time spent waiting for them."""
        before = time.perf_counter()
        for batch in batches:
            self.waited += time.perf_counter() - before
            yield batch
            before = time.perf_counter()

    def begin(self, done: int, losses: Mapping[str, Tensor]) -> None:
        """Say once, of the first iterations after ``done``, how low the first of ``losses`` is and how long they take.

        The very first is not timed: it makes what the others use again."""
        if self.writer is None or self._first == (-1, 0.0):
            return
        now = time.perf_counter()
        if self._first is None:
            self._first = done, now
            if done == 1:
                name, loss = next(iter(losses.items()))
                logger.info(f"first {name}: {float(loss):.4g}")
        count, spent = done - self._first[0], now - self._first[1]
        if count >= FIRST or (count >= 3 and spent >= PATIENCE):
            each, left = spent / count, self.iterations - done
            said = f"time: about {duration(each * left)} for {counted(left, 'more iteration')}"
            logger.info(f"{said} ({each:.3g} s each, measured on {count})")
            self._first = -1, 0.0

    def write(self, done: int, values: dict[str, float], recent: Mapping[str, float]) -> None:
        """Log ``values``, seconds per iteration, the part of these spent on data, and the memory of a GPU in MiB.

        ``recent``: what the console says, means since its last line."""
        if self.writer is None:
            return
        count, now = done - self.done, time.perf_counter()
        values = {**values, "time": (now - self.since) / count, "data_time": self.waited / count}
        if torch.cuda.is_available():
            values["memory"] = torch.cuda.max_memory_allocated() / 2**20
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": done, **values}) + "\n")
        self.writer.write(done, values)
        left = datetime.timedelta(seconds=int(values["time"] * (self.iterations - done)))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        parts = [f"{left} left", f"{values['time']:.3g} s/it", *(f"{n} {v:.4g}" for n, v in recent.items())]
        self.shown = "  ".join(parts[1:])
        short = FILE_ONLY if on_terminal() else {"short": _fitting([f"{done}/{self.iterations}", *parts])}
        logger.info(f"{done}/{self.iterations}  eta {left}  {shown}", extra=short)
        self.done, self.since, self.waited = done, now, 0.0


class ReadingShare:
    """A hook that logs ``reading_share``: the share of their time that the processes that read images, the workers or
    without them this one, spend on decoding and cropping. Near 1 the images are the bottleneck."""

    def __init__(self, batches: OuterBatches, workers: int) -> None:
        self.batches, self.workers = batches, max(1, workers)
        self.since, self.seconds = time.perf_counter(), 0.0

    def __call__(self, t: int, batch: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        if values is not None:
            now, seconds = time.perf_counter(), self.batches.seconds
            values["reading_share"] = (seconds - self.seconds) / (now - self.since) / self.workers
            self.since, self.seconds = now, seconds


class Recent:
    """Means of what was seen since the last line of the console."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, name: str, mean: float, terms: int) -> None:
        """``mean`` of ``terms`` values."""
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + mean * terms, count + terms

    def take(self) -> dict[str, float]:
        """The means, in the order in which their names came first; the next ones start anew."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        self._sums = {}
        return means


def duration(seconds: float) -> str:
    """E.g. ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _fitting(parts: list[str]) -> str:
    """``parts`` in a line of the console, as many as it holds."""
    text = parts[0]
    for part in parts[1:]:
        if len(text) + len(part) + 2 > WIDTH:
            break
        text += f"  {part}"
    return text


def _step_of(line: str) -> int:
    """The iteration of a line of ``log.jsonl``; 0 for one that was cut short when the run was killed."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return 0
