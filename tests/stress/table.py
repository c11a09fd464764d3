"""The table of runs of `tests.stress`, as Markdown: kinds that are run again replace their rows."""

import datetime
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from mlomae.common.system import cpu_model, git_state
from tests.stress.harness import Result

ROOT = Path(__file__).parents[2]
HEAD = ["| kind | what | passed | seconds | run |", "|---|---|---|---|---|"]


def run_phrase(seed: int, which: str) -> str:
    """The date and the commit of a run that begins."""
    commit, dirty = git_state(ROOT)
    return f"{datetime.date.today()}, {(commit or 'unknown')[:12]}{', changed' * bool(dirty)}, seed {seed}, {which}"


def table(results: Mapping[str, Sequence[Result]], whats: Mapping[str, str], run: str, before: str = "") -> str:
    """A row for each kind and one for each of its rows: cases that passed, of how many, and the seconds that all have
    taken; with a kind its `run_phrase`.

    ``before``: an earlier table, whose other kinds are kept.
    """
    blocks = _blocks(before) | {kind: _block(kind, found, whats[kind], run) for kind, found in results.items()}
    counts = [re.findall(r"\| (\d+) of (\d+) \|", block[0])[0] for block in blocks.values()]
    passed, total = (sum(int(count[i]) for count in counts) for i in range(2))
    made = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}, {cpu_model()}"
    lines = ["# Under fire", "", "Written by `make stress`; `docs/promises.md` says what is promised.", ""]
    lines += [f"{made}: **{passed} of {total}**.", "", *HEAD]
    return "\n".join([*lines, *(line for kind in sorted(blocks) for line in blocks[kind]), ""])


def _blocks(text: str) -> dict[str, list[str]]:
    """The lines of each kind in a table."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if kind := re.match(r"\| \*\*(\w+)\*\* \|", line):
            found[kind[1]] = [line]
        elif line.startswith("| | ") and found:
            found[list(found)[-1]].append(line)
    return found


def _block(kind: str, found: Sequence[Result], what: str, run: str) -> list[str]:
    rows = dict.fromkeys(result.case.row for result in sorted(found, key=lambda result: result.case.name))
    lines = [f"| **{kind}** | {what} | {_share(found)} | {_seconds(found)} | {run} |"]
    for row in rows:
        those = [result for result in found if result.case.row == row]
        lines.append(f"| | {row} | {_share(those)} | {_seconds(those)} | |")
    return lines


def _share(found: Sequence[Result]) -> str:
    return f"{sum(result.fault is None for result in found)} of {len(found)}"


def _seconds(found: Sequence[Result]) -> str:
    return f"{sum(result.seconds for result in found):.0f}"
