"""What a user sees while a program works: on a terminal one display of progress, elsewhere plain short lines.

Only rank 0 of ``torchrun`` speaks. A reader that has closed the pipe (``| head``) is no fault: `reader_gone` tells it
from a disk that is full.
"""

import os
import select
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
PERCENT = 100  # steps
WIDTH = 120  # characters of a plain line; a word that is longer stays whole, such as a path
GONE = 141  # the exit status of a program whose reader has gone: 128 + SIGPIPE, as shells give it
_display: "Progress | None" = None


def _speaks() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def on_terminal() -> bool:
    """Whether standard output is a terminal that can redraw a line."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def wrapped(text: str) -> str:
    """``text`` with lines of at most `WIDTH` characters, the continued ones indented."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False, "replace_whitespace": False}
    lines = (textwrap.wrap(line, WIDTH, subsequent_indent="    ", **options) or [""] for line in text.splitlines())
    return "\n".join(part for line in lines for part in line)


def say(text: str, wrap: bool = True) -> None:
    """Print ``text``, above the display where there is one; without ``wrap`` as it is, to be copied."""
    if not _speaks():
        return
    if _display is not None:
        _display.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        print(wrapped(text) if wrap else text, flush=True)


class Stage:
    """A bar of the display; nothing where there is none."""

    def __init__(self, display: "Progress | None" = None, task: Any = None) -> None:
        self._display, self._task, self.done = display, task, 0

    def advance(self, done: int | None = None, said: str | None = None) -> None:
        """``done`` of its total (default: one more) are done; ``said`` stays beside the bar until it is replaced."""
        self.done = self.done + 1 if done is None else done
        if self._display is not None:
            more: dict[str, Any] = {} if said is None else {"said": said}
            self._display.update(self._task, completed=self.done, **more)


@contextmanager
def stage(label: str, total: int, done: int = 0) -> Iterator[Stage]:
    """A part of the work, ``total`` steps long, with its own bar on a terminal while it lasts: what is within another
    one is shown below it. A total of `PERCENT` is shown as a share."""
    global _display
    if not (_speaks() and on_terminal()):
        yield Stage()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    first = _display is None
    if _display is None:
        fixed, fitting = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis")
        width = max(12, shutil.get_terminal_size().columns - 55)  # what the other columns leave
        label_column = Column(no_wrap=True, overflow="ellipsis", max_width=width)
        columns = (
            TextColumn("{task.description}", markup=False, table_column=label_column),
            BarColumn(20),
            TextColumn("{task.completed}{task.fields[of]}", markup=False, justify="right", table_column=fixed),
            TimeElapsedColumn(table_column=fixed),
            TimeRemainingColumn(table_column=fixed),
            TextColumn("left", table_column=fixed),
            TextColumn("{task.fields[said]}", markup=False, table_column=fitting),
        )
        # other threads and forked workers print, too: only `say` goes through the display
        options: dict[str, Any] = {"redirect_stdout": False, "redirect_stderr": False, "refresh_per_second": 4}
        _display = Progress(*columns, transient=True, **options)
        _display.start()
    of = " %" if total == PERCENT else f"/{total}"
    task = _display.add_task(label, total=total, completed=done, said="", of=of)
    try:
        yield Stage(_display, task)
    finally:
        _display.remove_task(task)
        if first:
            _display.stop()
            _display = None


def shown(items: Iterable[T], label: str) -> Iterator[T]:
    """``items``, with a `stage` while they are gone through if their number is known."""
    if not isinstance(items, Sized):
        yield from items
        return
    with stage(label, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()


def reader_gone(error: BaseException | None) -> bool:
    """Whether ``error``, or what has led to it, is that nobody reads standard output or standard error any more."""
    while error is not None and not isinstance(error, BrokenPipeError):
        error = error.__cause__ or error.__context__
    return error is not None and any(map(_closed, (sys.stdout, sys.stderr)))


def _closed(stream: Any) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows; a stream that is no file
        return False


def hush() -> None:
    """Let what is still to be written to a reader that has gone go nowhere, or the interpreter complains at its end."""
    for stream in (sys.stdout, sys.stderr):
        if _closed(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
