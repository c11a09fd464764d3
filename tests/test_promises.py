"""Every promise of docs/promises.md names tests that exist."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "promises.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises(text: str) -> dict[str, list[tuple[str, str]]]:
    """The tests, (file, function), that each row of the page's tables names."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): NAMED.findall(cells[1]) for cells in rows if cells[0].strip() != "promise"}


def missing(text: str) -> list[str]:
    """Promises without a test, and tests that are not there."""
    found = promises(text)
    wrong = [promise for promise, tests in found.items() if not tests]
    named = {test for tests in found.values() for test in tests}
    return wrong + sorted(f"{file}::{name}" for file, name in named if name not in functions(file))


@functools.cache
def functions(file: str) -> set[str]:
    """The tests in a file, none if there is no such file."""
    path = ROOT / file
    body = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_tests_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(promises(text)) > 30
    assert missing(text) == []


def test_what_is_not_there_is_found() -> None:
    """Mutations: a renamed test, a file that is gone, a promise that nothing holds."""
    good = "| a | `tests/test_promises.py::test_what_is_not_there_is_found` |\n"
    assert missing(good) == []
    assert missing(good.replace("is_found", "is_lost")) == ["tests/test_promises.py::test_what_is_not_there_is_lost"]
    assert missing(good.replace("test_promises.py", "gone.py"))
    assert missing("| b | by nothing |\n") == ["b"]
