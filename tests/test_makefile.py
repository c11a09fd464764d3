"""Variables given to make are text: each is one word, or a quoted list of words, and is never run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_samples import one_line

from benchmarks.suite.file import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
PRINTS = f"""#!{sys.executable} -IS
import json, os, sys
if sys.argv[1] == "-c":
    os.execv(sys.executable, sys.argv)
print(json.dumps(sys.argv[1:]))
"""
VALUES = r"""a b|a  b|a'b|a"b|a;touch x|$(touch x)|$(shell touch x)|`touch x`|$HOME|$$|a\b|a\|'|\'|(a)|{a,b}|*|a,b|a#b
a&b|<a>|é|-x|%|@|x~/y|'~/y""".replace("\n", "|").split("|")
TEXTURES = "configs/pretrain/mlomae-pooled_vit-w128-d4_textures.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout in which what a recipe starts prints its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name in ("pyproject.toml", "constraints/3.11.txt", ".venv/.installed", ".venv/.peers"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("mlomae", "python"):
        (commands / name).write_text(PRINTS)
        (commands / name).chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/me", **environment}
    before = sorted(folder.rglob("*"))
    done = subprocess.run(["make", "-s", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert sorted(folder.rglob("*")) == before, "something was run"
    return done


def words(folder: Path, *arguments: str, **environment: str) -> list[str]:
    done = make(folder, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("value", [*VALUES, "a|b", "a\x01\tb\r"])
def test_a_value_is_one_word(folder: Path, value: str) -> None:
    given = [f"{name}={value}" for name in ("CONFIG", "DATA", "WORK_DIR", "CKPT", "TASK", "SUITE")]
    assert words(folder, "pretrain", *given) == ["pretrain", value, "--data", value, "--work-dir", value]
    options = ["--weights", value, "--data", value, "--work-dir", value]
    assert words(folder, "bench-cls", *given) == ["bench", value, value, *options]
    demo = ["suite", "run", "configs/suites/bench.py", "--tasks", value, "--weights", value, "--work-dir", value]
    assert words(folder, "bench", *given[2:]) == demo
    assert words(folder, "suite", f"SUITE={value}") == ["suite", "run", value]


@pytest.mark.parametrize("value", ["a b;touch x", "$(shell touch x)", "`touch x`"])
def test_the_python_of_setup_is_one_word(folder: Path, value: str) -> None:
    (folder / "pyproject.toml").write_text("newer than the environment")
    done = make(folder, "setup", f"PYTHON={value}")
    assert done.returncode == 2
    assert f"{value}: " in done.stderr, "no such command"


def test_a_line_break_is_refused(folder: Path) -> None:
    refused = make(folder, "pretrain", "DATA=a\ntouch x;")
    assert refused.returncode == 2
    assert "error: DATA holds a line break" in one_line(refused.stderr)


def test_a_home_folder_is_found_whatever_the_shell(folder: Path) -> None:
    assert words(folder, "pretrain", "WORK_DIR=~/a b")[-1] == "/home/me/a b"
    assert words(folder, "pretrain", "OPTIONS=--work-dir ~/a")[-1] == "/home/me/a"
    assert words(folder, "pretrain", "WORK_DIR=~/a", HOME="$(shell touch x)")[-1] == "$(shell touch x)/a"


TEXT = "--a \"b 'c\" 'd \"e' f\\ g ;touch x `touch y` $(shell touch z) $HOME # h $(touch i) '' > j"
SPLIT = ["--a", "b 'c", 'd "e', "f g", ";touch", "x", "`touch", "y`", "$(shell", "touch", "z)", "$HOME", "#", "h"]
SPLIT += ["$(touch", "i)", "", ">", "j"]


@pytest.mark.parametrize(
    ("target", "before"),
    [
        ("pretrain", ["pretrain", TEXTURES]),
        (
            "bench-seg",
            ["suite", "run", "configs/suites/bench.py", "--tasks", "segmentation", "--work-dir", "work_dirs/bench-seg"],
        ),
        ("suite", ["suite", "run", "configs/suites/textures.py"]),
        ("bench-speed", ["-m", "benchmarks.cost.speed"]),
        ("bench-data", ["-m", "benchmarks.cost.loading"]),
        ("flops", ["-m", "benchmarks.cost.flops"]),
        ("figures", ["-m", "benchmarks.analysis.figures"]),
        ("report", ["-m", "benchmarks.analysis.report"]),
        ("stress", ["-m", "tests.stress"]),
        ("matrix", ["-m", "tests.matrix"]),
    ],
)
def test_options_are_words_that_may_be_quoted(folder: Path, target: str, before: list[str]) -> None:
    assert words(folder, target, f"OPTIONS={TEXT}") == [*before, *SPLIT]
    refused = make(folder, target, "OPTIONS=--a 'b")
    assert refused.returncode == 2
    assert "error: OPTIONS has a quote that is not closed" in one_line(refused.stderr)


def test_the_folders_of_a_suite_are_words_that_may_be_quoted(folder: Path) -> None:
    given = words(folder, "suite", f"DATA=cifar10=a 'camvid=b c' {TEXT}", "OPTIONS=--jobs 1")
    assert given == [
        "suite",
        "run",
        "configs/suites/textures.py",
        "--data",
        "cifar10=a",
        "camvid=b c",
        *SPLIT,
        "--jobs",
        "1",
    ]


@pytest.mark.parametrize("value", ["x", "$(shell touch x)"])
def test_the_environment_gives_no_values(folder: Path, value: str) -> None:
    names = ("CONFIG", "DATA", "WORK_DIR", "CKPT", "TASK", "SUITE", "OPTIONS", "PYTHON")
    environment = dict.fromkeys(names, value)
    assert words(folder, "pretrain", **environment) == ["pretrain", TEXTURES]
    assert words(folder, "suite", **environment) == ["suite", "run", "configs/suites/textures.py"]
    assert "name a folder of benchmarks/tasks/" in make(folder, "bench", **environment).stderr


def installs(folder: Path, *arguments: str, uv: bool = True) -> list[list[str]]:
    """The arguments of all that `make setup` starts to install with, where that is to be done again."""
    (folder / "tools").mkdir(exist_ok=True)
    if uv:
        (folder / "tools" / "uv").write_text(PRINTS)
        (folder / "tools" / "uv").chmod(0o755)
    (folder / ".venv" / ".installed").unlink()
    (folder / PINS[1]).touch()
    path = f"{folder / 'tools'}:/usr/local/bin:/usr/bin:/bin"
    command = ["make", "-s", "setup", f"PYTHON={sys.executable}", *arguments]
    done = subprocess.run(command, cwd=folder, env={"PATH": path, "HOME": "/"}, capture_output=True, text=True)
    assert (done.returncode == 0) == (folder / ".venv" / ".installed").is_file()
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


PINS = ["-c", "constraints/{}.{}.txt".format(*sys.version_info)]
PROJECT = [*PINS, "-e", ".[benchmarks,dev]"]
UV = ["pip", "install", "-q", "--python", ".venv/bin/python"]
PIP = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]


@pytest.mark.parametrize(("uv", "install"), [(True, UV), (False, PIP)])
def test_setup_installs_with_uv_where_it_is_and_with_pip_elsewhere(folder: Path, uv: bool, install: list[str]) -> None:
    assert installs(folder, uv=uv) == [[*install, *PROJECT]]


def test_uv_makes_the_environment_too(folder: Path) -> None:
    """Debian's Python has no venv of its own."""
    (folder / ".venv" / "bin" / "python").unlink()
    made = ["venv", "-q", "--seed", "--allow-existing", "--python", sys.executable, ".venv"]
    assert installs(folder)[0] == made


@pytest.mark.parametrize("index", ["https://index/cpu", "a b;touch x", "$(shell touch x)"])
@pytest.mark.parametrize(("uv", "install"), [(True, UV), (False, PIP)])
def test_torch_and_torchvision_come_from_the_index_that_is_named(
    folder: Path, uv: bool, install: list[str], index: str
) -> None:
    named = [*install, "--force-reinstall", "--no-deps", "--index-url", index, *PINS, "torch", "torchvision"]
    assert installs(folder, f"TORCH_INDEX={index}", uv=uv) == [named, [*install, *PROJECT]]
    assert not (folder / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bench-cls", "DATA=x"], "error: DATA goes with CONFIG=configs/TASK/"),
        (["bench", "TASK=detection", "DATA=x"], "error: DATA goes with CONFIG=configs/TASK/"),
        (["bench"], "error: name a folder of benchmarks/tasks/ with TASK="),
        (["pretrain", "OPTIONS=--a 'b"], "error: OPTIONS has a quote that is not closed"),
    ],
)
def test_what_is_wrong_is_refused_before_an_environment_is_built(folder: Path, arguments: list[str], said: str) -> None:
    shutil.rmtree(folder / ".venv")
    refused = make(folder, *arguments, f"PYTHON={sys.executable}")
    assert refused.returncode == 2
    assert said in one_line(refused.stderr)
    assert not refused.stdout
