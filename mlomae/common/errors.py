"""Errors a user can cause. Each message is one line that names the thing and the remedy.

The command line prints the line and exits with status 2; a traceback means a bug of ours, not a wrong input.
"""

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from mlomae.common.console import GONE, hush, reader_gone
from mlomae.common.installing import import_fault

STOPPED = 75  # exit status, EX_TEMPFAIL of sysexits.h: to be tried again; no shell, timeout or signal gives it
_NOT_GIVEN = (  # in the messages of torch and the system
    "allocate",
    "alloc_cpu",
    "could not create a primitive",  # of oneDNN
    "Storage size calculation overflowed",
    "start new thread",
    "failed to map segment",  # of a library
    "Resource temporarily unavailable",
)


class MlomaeError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(MlomaeError):
    """A configuration value is unknown, out of range or contradicts another one."""


class DataError(MlomaeError):
    """A data set is missing, damaged or used where it must not be."""


class CheckpointError(MlomaeError):
    """A checkpoint cannot be written, read or applied to this model."""


class TrainingError(MlomaeError):
    """Training cannot go on (a loss that is not finite, automatic mixed precision that is not active)."""


class BackendError(MlomaeError):
    """A library that runs part of the program is missing, broken, lacks a function or was imported too early."""


def reason_of(error: BaseException) -> str:
    """The message of a foreign exception on one line, to be quoted in ours; the name of its class if it is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line_of(error: BaseException) -> str:
    """The first line of an exception's message, for errors of linkers and loaders, which can be pages long."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, or a thread, was asked for and not given: MemoryError, or torch's error of another class."""
    said = str(error)
    return isinstance(error, MemoryError) or any(text in said for text in _NOT_GIVEN)


REFUSABLE = (MlomaeError, OSError, MemoryError, RuntimeError, ImportError, EOFError)
"""What commands catch, for `refuse`."""


def first_names(names: Iterable[object], most: int = 3) -> str:
    """The first names and how many more there are, e.g. ``a, b, c and 4 more``."""
    found = [str(name) for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def counted(count: int, noun: str) -> str:
    """``1 epoch``, ``2,000 epochs``, ``2 classes``, ``2 categories``."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def lack_of(error: BaseException) -> MlomaeError | None:
    """What the system did not give, memory, files or processes, where that is the reason of a foreign error; else None.

    It may come from a loader's worker, with its traceback, the message last.
    """
    lines = str(error).strip().splitlines() or [""]
    said = lines[-1] if "Original Traceback" in str(error) else lines[0]
    ended = isinstance(error, RuntimeError) and "DataLoader worker" in lines[0] and "Caught" not in lines[0]
    if ended or _hung_up(error):  # the latter while it handed over a batch
        pids = re.findall(r"\d+", lines[0]) if ended else []
        return TrainingError(
            f"a worker that reads images (process {pids[0] if pids else 'unknown'}) was ended from outside, by the "
            "system if memory ran out; lower data.num_workers if so, then go on with --resume"
        )
    if "Too many open files" in str(error) or "ancdata" in str(error):
        return TrainingError(
            f"too many files are open ({said:.100}); raise the limit (`ulimit -n 4096`) or lower data.num_workers"
        )
    if isinstance(error, MemoryError | RuntimeError | OSError | ImportError) and is_out_of_memory(error):
        return TrainingError(
            f"out of memory or threads ({said or 'no more was given':.150}); lower the batch size or data.num_workers, "
            "or end other processes, then go on with --resume"
        )
    return None


def _hung_up(error: BaseException) -> bool:
    """Whether the process at the other end of a connection is gone."""
    if isinstance(error, ConnectionResetError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, EOFError) and bool(frames) and Path(frames[-1].filename).parent.name == "multiprocessing"


def refuse(error: BaseException) -> int:
    """Print one of the errors `REFUSABLE` as one line on standard error; the exit status, 2. Nothing, and `GONE`, where
    the reader of what a program prints has gone.

    Raises it with MLOMAE_TRACEBACK set, and if it is of another kind and not for lack of something.
    """
    if reader_gone(error):
        hush()
        return GONE
    known: Exception | None = error if isinstance(error, MlomaeError) else lack_of(error)
    if known is None and (fault := import_fault(error)):
        known = BackendError(fault)
    if os.environ.get("MLOMAE_TRACEBACK") or (known is None and not isinstance(error, OSError)):
        raise error
    remedy = "" if known else "; check the path, its permissions and the free disk space"
    print(f"error: {' '.join(str(known or error).split())}{remedy}", file=sys.stderr)
    return 2


def exit_status(main: Callable[..., int | None]) -> Callable[..., int]:
    """``main`` as a command line that returns its status, 0 by default; 2 after one line on standard error."""

    @functools.wraps(main)
    def command(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except REFUSABLE as error:
            return refuse(error)

    return command
