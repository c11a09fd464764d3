"""What would run code if it were trusted, and the commands that are given it: if it runs, there is a new folder."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cls_runs
import tiny

from tests.stress.commands import command
from tests.stress.harness import Check

MARK = "executed"  # the folder that code would make
Arguments = list[Any]
Make = Callable[[Path, Path], Arguments]
"""(an empty folder, the mark) -> a command on files that it has written"""


class Harmful:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def refused_unread(make: Make, *mentioned: str) -> Check:
    """``make(folder, mark)`` writes the files and gives a command, which must be refused."""

    def check(folder: Path) -> None:
        mark = folder / MARK
        command(*make(folder, mark)).refused(*mentioned)
        assert not mark.exists(), "code was run"

    return check


def plain_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def pretrain(folder: Path, **changes: Any) -> Arguments:
    return ["pretrain", tiny.write_config(folder / "tiny.py", **changes), "--work-dir", folder / "work"]


def bench(folder: Path, **changes: Any) -> Arguments:
    (folder / "classification").mkdir()
    config = cls_runs.write_config(folder / "classification" / "tiny.py", **changes)
    return ["bench", "classification", config, "--work-dir", folder / "work"]
