"""The table of `make matrix`, as Markdown: a cell that is tried again replaces its row."""

import datetime
import platform
import re
from collections.abc import Sequence

from mlomae.common.system import git_state
from tests.matrix.cells import CELLS, ROOT, SHOWN, Cell, Tried

HEAD = ["Python", "packages", "result", *SHOWN, "tests", "install, tests (s)", "run"]
INTRO = f"""# Where it installs and works

Written by `make matrix`: for each Python an environment of its own with the oldest, the pinned or the newest packages,
`pip check`, `mlomae doctor`, and the tests of what other packages change. ({platform.system()}, {platform.machine()})
"""


def run_phrase() -> str:
    """The date and the commit of a run that begins."""
    commit, dirty = git_state(ROOT)
    return f"{datetime.date.today()}, {(commit or 'unknown')[:12]}{', changed' * bool(dirty)}"


def table(tried: Sequence[Tried], run: str, before: str = "") -> str:
    """A row for each cell of `CELLS` that was tried now, by ``run``, or is in ``before``, an earlier table."""
    rows = _rows(before) | {result.cell: _row(result, run) for result in tried}
    lines = [INTRO, "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *(rows[cell] for cell in CELLS if cell in rows), ""])


def _rows(text: str) -> dict[Cell, str]:
    return {Cell(*found.groups()): found.string for line in text.splitlines() if (found := _first(line))}


def _first(line: str) -> re.Match[str] | None:
    return re.match(r"\| (3\.\d+)(?:\.\w+)? \| (\w+) \|", line)


def _row(result: Tried, run: str) -> str:
    state = result.state if result.state == "ok" else f"{result.state}: {result.why}".replace("|", "/")
    seconds = ", ".join(f"{result.steps[name]:.0f}" for name in ("install", "tests") if name in result.steps)
    versions = [result.versions.get(name, "") for name in SHOWN]
    python = result.versions.get("python", result.cell.python)
    return "| " + " | ".join([python, result.cell.packages, state, *versions, result.tests, seconds, run]) + " |"
