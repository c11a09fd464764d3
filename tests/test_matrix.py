"""`make matrix` tells a cell that fails from one that a dependency forbids and from one that could not be tried."""

import os
import sys
from pathlib import Path

import pytest

from tests.matrix import cells
from tests.matrix.__main__ import main
from tests.matrix.cells import CELLS, ROOT, TESTS, Cell, Tried, try_cell
from tests.matrix.table import run_phrase, table

UV = """#!{python} -IS
import os, sys
words = " ".join(sys.argv[1:])
if words.startswith("python find"):
    print({found!r})
    sys.exit(0 if {found!r} else 1)
if words.startswith("venv"):
    os.makedirs(sys.argv[-1] + "/bin")
    os.symlink({tool!r}, sys.argv[-1] + "/bin/python")
for mark, text in {fails!r}.items():
    if mark in words:
        print(text)
        sys.exit(1)
if sys.argv[1] == "-m":
    print("===== 12 passed, 1 skipped in 3.21s =====")
if sys.argv[1] == "-c":
    print("python 3.13.0\\ntorch 2.15.0")
"""
CELL = Cell("3.13", "newest")
FETCH = "Failed to fetch: `https://index.example/simple/torch/`"


@pytest.mark.parametrize(
    ("found", "fails", "state", "why"),
    [
        ("/x/python", {}, "ok", ""),
        ("", {}, "not tried", "no Python 3.13 here; uv finds packages for it"),
        ("", {"pip compile": "error: No\n  cause: a needs b"}, "forbidden", "resolve: a needs b"),
        ("", {"pip compile": f"error: {FETCH}\n  Caused by: dns error"}, "not tried", f"resolve: {FETCH}"),
        ("/x/python", {"pip install": f"error: {FETCH}"}, "not tried", f"install: {FETCH}"),
        ("/x/python", {"-m pytest": "FAILED tests/a.py::b - timed out"}, "failed", "tests: tests/a.py::b - timed out"),
        ("/x/python", {"pip install": "error: no such wheel"}, "failed", "install: no such wheel"),
        ("/x/python", {"doctor": "problem: old\nproblem: x"}, "failed", "doctor: old and 1 more"),
        ("/x/python", {"-m pytest": "..F\nFAILED tests/a.py::b - x\n1 failed"}, "failed", "tests: tests/a.py::b - x"),
    ],
)
def test_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str, fails: dict[str, str], state: str, why: str
) -> None:
    tool = tmp_path / "tools" / "uv"
    tool.parent.mkdir()
    tool.write_text(UV.format(python=sys.executable, tool=str(tool), found=found, fails=fails))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    tried = try_cell(CELL, tmp_path / "cell", {}, lambda line: None)
    assert (tried.state, tried.why) == (state, why)
    assert not (tmp_path / "cell" / "env").exists(), "an environment takes gigabytes"
    if state == "ok":
        assert tried.tests == "12 passed, 1 skipped"
        assert tried.versions == {"python": "3.13.0", "torch": "2.15.0"}
        assert "12 passed" in (tmp_path / "cell" / "tests.log").read_text()


def test_without_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells.shutil, "which", lambda name: None)
    assert try_cell(CELL, tmp_path, {}, print).state == "not tried"


def test_a_cell_that_is_tried_again_replaces_its_row() -> None:
    first = table([Tried(CELLS[0]), Tried(CELL, "failed", "a | b")], "2026-01-01, abc")
    again = table([Tried(CELL, versions={"python": "3.13.1", "torch": "2.15.0"}, tests="3 passed")], "now", first)
    rows = [line for line in again.splitlines() if line.startswith("| 3.")]
    assert rows[0].startswith("| 3.10 | oldest | ok |")
    assert rows[0].endswith("| 2026-01-01, abc |")
    assert rows[1].startswith("| 3.13.1 | newest | ok | 2.15.0 |")
    assert len(rows) == 2
    assert "failed: a / b" in first
    assert len({line.count("|") for line in again.splitlines() if line.startswith("|")}) == 1
    assert table([], "", again) == again


def test_its_cells_and_tests_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert all((ROOT / path).exists() for path in TESTS)
    assert all((ROOT / "constraints" / f"{cell.python}.txt").is_file() for cell in CELLS)
    assert main(["--list"]) == 0
    assert "3.13-newest" in capsys.readouterr().out.split()
    assert run_phrase().startswith("20")


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").iterdir()), ids=lambda path: path.name)
def test_pins_name_releases_and_no_place(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all("==" in line and "/" not in line and "@" not in line for line in lines)
    assert {"torch", "torchvision", "timm", "onedl-mmcv"} <= {line.partition("==")[0] for line in lines}
