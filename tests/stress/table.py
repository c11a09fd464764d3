"""The table of a run of `tests.stress`, as Markdown."""

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mlomae.common.system import cpu_model, git_state
from tests.stress.harness import Result

ROOT = Path(__file__).parents[2]


def table(results: Mapping[str, Sequence[Result]], whats: Mapping[str, str], seed: int, which: str) -> str:
    """A row for each row of each kind: cases that passed, of how many, and the seconds that all have taken."""
    commit, dirty = git_state(ROOT)
    made = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}, {cpu_model()}"
    state = {True: ", with changes that are not committed", False: "", None: ""}[dirty]
    passed = [result.fault is None for found in results.values() for result in found]
    lines = [
        "# Under fire",
        "",
        "Written by `make stress`; `docs/promises.md` says what is promised.",
        "",
        f"{datetime.date.today()}, commit {(commit or 'unknown')[:12]}{state}, {made}; seed {seed}, {which}: "
        f"**{sum(passed)} of {len(passed)}**.",
        "",
        "| kind | cases | passed | seconds |",
        "|---|---|---|---|",
    ]
    for kind, found in results.items():
        rows = dict.fromkeys(result.case.row for result in sorted(found, key=lambda result: result.case.name))
        lines.append(f"| **{kind}** | {whats[kind]} | {_share(found)} | {_seconds(found)} |")
        for row in rows:
            those = [result for result in found if result.case.row == row]
            lines.append(f"| | {row} | {_share(those)} | {_seconds(those)} |")
    return "\n".join([*lines, ""])


def _share(found: Sequence[Result]) -> str:
    return f"{sum(result.fault is None for result in found)} of {len(found)}"


def _seconds(found: Sequence[Result]) -> str:
    return f"{sum(result.seconds for result in found):.0f}"
