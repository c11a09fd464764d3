"""The log of a run: messages, and its numbers as JSON lines and for TensorBoard. Only the main process writes."""

import datetime
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mlomae.common.atomic import write_text
from mlomae.data import Images, OuterBatches

logger = logging.getLogger("mlomae")


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Within the block, the main process's messages go to the terminal and to ``train.log`` in the run's folder."""
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        handlers = [logging.StreamHandler(sys.stdout), logging.FileHandler(folder / "train.log", encoding="utf-8")]
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
    """The numbers of a run's log: JSON lines in ``log.jsonl``, the same for TensorBoard, and a readable line.

    After a resume at ``done`` iterations, later lines are dropped: they come again. Only the main process writes.
    """

    def __init__(self, folder: Path, done: int, iterations: int) -> None:
        self.done, self.iterations = done, iterations
        self.since, self.waited = time.perf_counter(), 0.0
        self.path, self.writer = folder / "log.jsonl", None
        if is_main_process():
            if self.path.exists():
                lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
                write_text(self.path, "".join(line for line in lines if 0 < _step_of(line) <= done))
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
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

    def write(self, done: int, values: dict[str, float]) -> None:
        """Log ``values``, seconds per iteration, the part of these spent on data, and the memory of a GPU in MiB."""
        if self.writer is None:
            return
        count, now = done - self.done, time.perf_counter()
        values = {**values, "time": (now - self.since) / count, "data_time": self.waited / count}
        if torch.cuda.is_available():
            values["memory"] = torch.cuda.max_memory_allocated() / 2**20
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": done, **values}) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(name, value, done)
        left = datetime.timedelta(seconds=int(values["time"] * (self.iterations - done)))
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info(f"{done}/{self.iterations}  eta {left}  {shown}")
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


def _step_of(line: str) -> int:
    """The iteration of a line of ``log.jsonl``; 0 for one that was cut short when the run was killed."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return 0
