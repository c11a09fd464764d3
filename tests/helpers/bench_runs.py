"""The suite configs/suites/bench.py at a size for tests, its transfers run in this process."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.commands import BENCH
from benchmarks.suite import command
from benchmarks.tasks import get_task
from mlomae.backbones import task as registry
from mlomae.cli import build_parser, main

COMMAND = ["suite", "run", BENCH]
Launch = Callable[[list[str], Path], int]


def launch_with(monkeypatch: pytest.MonkeyPatch, launch: Launch) -> None:
    """Make suites start their runs with ``launch``."""
    monkeypatch.setattr(command, "start", lambda *given, **options: launch(*given))


def in_process(command: list[str], log: Path) -> int:
    """What a run's process does, here: imports of many processes would take most of the time of these tests."""
    assert command[:3] == [sys.executable, "-m", "mlomae.cli"]
    assert log.parent.is_dir()
    return main(command[3:])


def fail(*_: Any) -> int:
    raise AssertionError("run again")


def bench(
    out: Path, *arguments: str, options: Mapping[str, Any] | None = None, file: str = BENCH
) -> argparse.Namespace:
    """The arguments of a bench, one run at a time, as its functions take them."""
    changes = [f"{key}={value}" for key, value in (options or {}).items()]
    return build_parser().parse_args(
        ["suite", "run", file, "--work-dir", str(out), "--jobs", "1", *arguments, "--cfg-options", *changes]
    )


def set_splits(monkeypatch: pytest.MonkeyPatch, name: str, splits: Mapping[str, Any]) -> None:
    """Let ``name`` write other images for its bench."""
    task = get_task(name)
    assert task.embedded is not None
    changed = dataclasses.replace(task, embedded=dataclasses.replace(task.embedded, splits=splits))
    monkeypatch.setitem(registry._TASKS, name, changed)


def records_under(out: Path) -> dict[Path, dict[str, Any]]:
    """Folder of a run -> its record."""
    return {path.parent: json.loads(path.read_text()) for path in out.rglob("record.json")}
