"""What is tried, and how one cell is: an environment of its own, install, `pip check`, `mlomae doctor`, some tests.

uv makes the environments: it knows the oldest releases that a project allows, and keeps what it has downloaded.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = ".[benchmarks,dev]"
SHOWN = ("torch", "torchvision", "timm", "numpy", "onedl-mmengine", "onedl-mmcv", "opencv-python")
TESTS = (  # of what other packages change: their weights, transforms, operators, file formats; three minutes
    "tests/common",
    "tests/config",
    "tests/models/test_vit.py",
    "tests/models/test_weights.py",
    "tests/multilevel/test_quadratic.py",
    "tests/backbones/test_export.py",
    "tests/backbones/test_feature_vit.py",
    "tests/backbones/test_load_image.py",
    "tests/backbones/test_mmcv_ops.py",
    "tests/backbones/test_mmcv_ops_mask_rcnn.py",
    "tests/data/test_reader.py",
    "tests/data/test_streams.py",
    "tests/classification/test_cls_model.py",
    "tests/benchmarks/tasks/segmentation/test_seg_model.py",
    "tests/test_doctor.py",
    "tests/test_without_opencv.py",
    "tests/test_workers.py",
)


@dataclass(frozen=True)
class Cell:
    """``packages``: "oldest" that pyproject.toml allows, "pinned" in constraints/, or "newest"."""

    python: str
    packages: str


CELLS = (
    Cell("3.10", "oldest"),
    Cell("3.10", "pinned"),
    Cell("3.11", "pinned"),
    Cell("3.12", "newest"),
    Cell("3.13", "newest"),
    Cell("3.14", "newest"),
)


@dataclass
class Tried:
    """``state``: "ok", "failed", "forbidden" by a dependency, or "not tried"; ``why``, unless it is ok.

    ``steps``: seconds of each. ``versions``: of Python and of `SHOWN`. ``tests``: pytest's last line.
    """

    cell: Cell
    state: str = "ok"
    why: str = ""
    steps: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tests: str = ""


class Failed(Exception):
    """A step of a cell that has not ended well; the message is what its last lines say."""


class Unreachable(Failed):
    """The network was not there, or not the index of packages."""


_NETWORK = re.compile(
    r"Failed to fetch|Failed to download|error sending request|dns error|timed out|[Cc]onnection (refused|reset|closed)"
    r"|[Nn]etwork is unreachable|Could not connect"
)


def interpreter(version: str, given: dict[str, str]) -> str | None:
    """A Python of this version: the one that is given, else the one that uv finds here; none is downloaded."""
    if version in given:
        return given[version]
    command = ["uv", "python", "find", "--no-python-downloads", "--no-project", "--system", version]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def try_cell(cell: Cell, folder: Path, pythons: dict[str, str], say: Callable[[str], None]) -> Tried:
    """Try one cell in ``folder``, where its environment is removed again and its logs stay."""
    tried = Tried(cell)
    if shutil.which("uv") is None:
        return Tried(cell, "not tried", "uv is not on PATH")
    pins = folder / "pins.txt"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _step(tried, "resolve", _resolve(cell, pins), folder)
    except Unreachable as error:
        return Tried(cell, "not tried", str(error))
    except Failed as error:
        return Tried(cell, "forbidden", str(error))
    if (python := interpreter(cell.python, pythons)) is None:
        return Tried(cell, "not tried", f"no Python {cell.python} here; uv finds packages for it")
    environment = folder / "env"
    own = str(environment / "bin" / "python")
    install = ["uv", "pip", "install", "-q", "--python", own, "-c", str(pins), "-e", PROJECT]
    pytest = ["-m", "pytest", "-m", "not slow and not gpu and not data", "-p", "no:cacheprovider", *TESTS]
    steps: dict[str, Sequence[str]] = {
        "venv": ["uv", "venv", "-q", "--python", python, str(environment)],
        "install": install,
        "pip check": ["uv", "pip", "check", "--python", own],
        "doctor": [own, "-m", "mlomae", "doctor"],
        "tests": [own, *pytest],
    }
    try:
        for name, command in steps.items():
            say(f"  {name} ...")
            text = _step(tried, name, command, folder)
            if name == "install":
                tried.versions = _versions(own)
        tried.tests = re.sub(r"^=+ | in [\d.]+s.*$", "", text.splitlines()[-1])
    except Failed as error:
        tried.state, tried.why = "not tried" if isinstance(error, Unreachable) else "failed", str(error)
    shutil.rmtree(environment, ignore_errors=True)
    return tried


def _resolve(cell: Cell, pins: Path) -> list[str]:
    """The command that writes the versions of a cell; it fails where the ranges of a dependency forbid it."""
    extras = ["--extra", "benchmarks", "--extra", "dev"]
    command = [
        "uv",
        "pip",
        "compile",
        "-q",
        "--python-version",
        cell.python,
        *extras,
        "pyproject.toml",
        "-o",
        str(pins),
    ]
    if cell.packages == "oldest":
        return [*command, "--resolution", "lowest-direct"]
    pinned = ROOT / "constraints" / f"{cell.python}.txt"
    return [*command, "-c", str(pinned)] if cell.packages == "pinned" else [*command, "--upgrade"]


def _step(tried: Tried, name: str, command: Sequence[str], folder: Path) -> str:
    """Run it, keep its log; what it has printed. Raises Failed with the end of that."""
    began = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "MLOMAE_DATA")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    tried.steps[name] = time.monotonic() - began
    text = done.stdout.strip()
    (folder / f"{name}.log".replace(" ", "_")).write_text(f"{text}\n", encoding="utf-8")
    if done.returncode:
        lost = name in ("resolve", "install") and _NETWORK.search(text)
        raise (Unreachable if lost else Failed)(f"{name}: {_reason(text)}")
    return text


def _reason(text: str) -> str:
    """The line of an output that says why: uv's cause, the doctor's problem, pytest's first failure, or the last."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()] or ["no output"]
    for mark in ("cause: ", "problem: ", "FAILED ", "ERROR ", "error: "):
        if found := [line for line in lines if line.startswith(mark)]:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return found[0].removeprefix(mark)[:300] + more
    return lines[-1][:300]


def _versions(python: str) -> dict[str, str]:
    script = f"""
import importlib.metadata, platform
print("python", platform.python_version())
for name in {SHOWN}:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        pass
"""
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())
