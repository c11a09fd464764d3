"""The rule of who may import whom (pyproject.toml, import-linter) holds, and notices what it is there to notice."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PYTHON, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("mlomae", "benchmarks"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_rule_holds(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("broken", "imports"),
    [
        ("The core stands alone", {"mlomae/records/fields.py": "benchmarks.commands"}),
        ("Layers of the core", {"mlomae/models/vit.py": "mlomae.masking.base"}),
        (
            "No circles",
            {
                "mlomae/feedback/linear.py": "mlomae.feedback.joint",
                "mlomae/feedback/joint.py": "mlomae.feedback.linear",
            },
        ),
    ],
    ids=["the core imports the benchmarks", "a lower layer imports a higher one", "two files import each other"],
)
def test_an_import_inside_a_function_breaks_it(copy: Path, broken: str, imports: dict[str, str]) -> None:
    kept = {name: (copy / name).read_text(encoding="utf-8") for name in imports}
    for name, imported in imports.items():
        (copy / name).write_text(f"{kept[name]}\n\ndef _late() -> None:\n    import {imported}\n", encoding="utf-8")
    try:
        done = lint(copy)
    finally:
        for name, text in kept.items():
            (copy / name).write_text(text, encoding="utf-8")
    assert done.returncode != 0
    assert re.search(rf"^{broken}.* BROKEN", done.stdout, re.MULTILINE), done.stdout
