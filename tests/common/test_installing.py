"""The advice of "not installed" messages names the Python that runs, and works from a checkout and from a wheel."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from run_samples import one_line

from mlomae.commands.use import register_tasks
from mlomae.common import installing
from mlomae.common.errors import refuse
from mlomae.common.installing import import_fault, install_command, opencv_fault, pip_command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("cwd", "executable", "command"),
    [
        ("repo", "repo/.venv/bin/python", ".venv/bin/python -m pip install -e '.[benchmarks]'"),
        ("", "repo/.venv/bin/python", "repo/.venv/bin/python -m pip install -e 'repo[benchmarks]'"),
        ("repo", "my env/bin/python", "'{tmp}/my env/bin/python' -m pip install -e '.[benchmarks]'"),
    ],
)
def test_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cwd: str, executable: str, command: str
) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "pyproject.toml").touch()
    monkeypatch.setattr(installing, "_CHECKOUT", tmp_path / "repo")
    monkeypatch.setattr(sys, "executable", str(tmp_path / executable))
    monkeypatch.chdir(tmp_path / cwd)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert install_command("benchmarks") == command.format(tmp=tmp_path)
    assert install_command().endswith("-e ." if cwd else "-e repo")


def test_every_extra_is_one_of_the_project_and_brings_its_modules() -> None:
    extras = dict(re.findall(r"^(\w+) = \[([^\]]*)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert set(installing.EXTRAS.values()) <= extras.keys()
    for name in ("onnx", "peers", "cluster"):
        modules = re.findall(r'"(\w+)>=', extras[name])
        assert modules
        assert {installing.EXTRAS.get(module) for module in modules} == {name}


def test_from_a_wheel_and_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(sys, "executable", "/opt/env/bin/python")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert install_command("peers") == "/opt/env/bin/python -m pip install 'mlomae[peers]'"
    assert install_command() == "/opt/env/bin/python -m pip install mlomae"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert pip_command() == "uv pip install --python /opt/env/bin/python"


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, None),
        ({"__init__.py": ""}, None),
        ({"__init__.py": "", "tasks.py": ""}, None),
        ({"__init__.py": "", "tasks.py": "import pandas_of_nowhere"}, "pandas_of_nowhere"),
        ({"__init__.py": "", "tasks.py": "import benchmarks.gone"}, "benchmarks.gone"),
    ],
)
def test_no_other_lack_than_that_of_the_benchmarks_is_passed_over(
    files: dict[str, str], missing: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a checkout whose installation is broken would call its own tasks unknown."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    package = ModuleType("benchmarks")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "benchmarks", package if files else None)
    monkeypatch.setitem(sys.modules, "benchmarks.tasks", None)
    monkeypatch.delitem(sys.modules, "benchmarks.tasks")  # what is imported now is forgotten at the end
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    if missing is None:
        return register_tasks()
    with pytest.raises(ModuleNotFoundError) as error:
        register_tasks()
    assert error.value.name == missing


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "torch is not installed for this Python; "),
        (ModuleNotFoundError("No module named 'mmseg'", name="mmseg"), "[benchmarks]"),
        (ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript"), "[onnx]"),
        (ModuleNotFoundError("No module named 'mlomae.x'", name="mlomae.x"), None),
        (ModuleNotFoundError("No module named 'timm.x'", name="timm.x"), None),
        (ImportError("libGL.so.1: cannot open shared object file: No such file"), "apt-get install libgl1 "),
        (ImportError("libz.so.1: cannot open shared object file: No such file"), "(libz.so.1: cannot open"),
        (ImportError("cannot import name 'x' from 'timm'"), None),
    ],
)
def test_failed_imports(error: ImportError, said: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    fault = import_fault(error)
    assert (fault is None) == (said is None)
    if said is None:
        with pytest.raises(ImportError):
            refuse(error)
    else:
        assert said in (fault or "")
        assert refuse(error) == 2
        assert one_line(capsys.readouterr().err) == f"error: {fault}"


@pytest.mark.parametrize("content", ["raise ImportError('libGL.so.1: cannot open shared object file')", ""])
def test_an_opencv_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Without its libraries, or the rest of one of two distributions that share its folder, after one was removed."""
    (tmp_path / "cv2.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    assert "apt-get install libgl1 libglib2.0-0; or " in (opencv_fault() or "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert opencv_fault() is None, "the core does without it"


def test_a_python_without_torch_gets_a_line(tmp_path: Path) -> None:
    """As where `python -m mlomae` takes another Python than the environment's."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules["torch"] = sys.modules["yaml"] = None
from mlomae.cli import main
sys.exit(main(["evaluate", "x.pth"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "is not installed for this Python; " in one_line(done.stderr)
