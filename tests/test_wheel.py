"""The wheel holds `mlomae` and configs of pretraining and classification; its commands need no checkout, or say so."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from photos import write_photos

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "mlomae", "benchmarks", "configs")
SMALL = ["train.outer_iterations=2", "data.train.count=200", "data.eval.count=40", "data.batch_size=8"]
CONFIG = "configs/pretrain/mlomae-pooled_vit-w128-d4_textures.py"
COMMANDS: list[list[str]] = [
    ["pretrain", CONFIG, "--work-dir", "run", "--cfg-options", *SMALL],
    ["evaluate", "run/checkpoints/iter_2.pth"],
    ["masks", "--checkpoints", "run/checkpoints/iter_2.pth", "--out", "masks.png", "--count", "2"],
    ["diagnose", "run/checkpoints/iter_2.pth", "--batches", "2", "--batch-size", "8"],
    ["export", "run/checkpoints/iter_2.pth", "encoder.safetensors"],
    ["embed", "run", "run/pictures", "--out", "features.npz"],
    ["classify", "--data", "photos", "--weights", "run", "--out", "classifier", "--cfg-options", "train.epochs=1"],
    ["predict", "classifier", "photos", "--out", "predictions.csv"],
    ["evaluate", "classifier"],
    ["demo", "--work-dir", "demo"],
]
CHECKOUT: list[list[str]] = [
    ["suite", "run", "configs/suites/textures.py", "--jobs", "2"],
    ["table", "comparison", "--trace", "x"],
    ["bench", "classification", "x.py"],
]
SCRIPT = """
import json, sys
sys.modules["benchmarks"] = None  # whatever else makes it importable here
import mlomae
from functools import partial
from mlomae.cli import main
from mlomae.config.strict import overrides
from mlomae.commands import demo
load, small = demo.load_config, overrides(json.loads(sys.argv[2]))
demo.load_config = lambda path, options: load(path, {**options, **small})
demo.pretrain_demo = partial(demo.pretrain_demo, iterations=1)
print(json.dumps([mlomae.__file__, *(main(command) for command in json.loads(sys.argv[1]))]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, because setuptools leaves folders of its own in it."""
    source = tmp_path_factory.mktemp("wheel") / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, source / name)
    return source


def make(kind: str, source: Path, folder: Path) -> Path:
    """The file that setuptools builds: "wheel", "editable", or "sdist"."""
    script = f"import sys; from setuptools.build_meta import build_{kind}; build_{kind}(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", script, folder], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("mlomae-*")
    return built


def build(kind: str, source: Path, folder: Path) -> zipfile.ZipFile:
    """What pip would install: "wheel", or "editable"."""
    return zipfile.ZipFile(make(kind, source, folder))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with build("wheel", source, tmp_path_factory.mktemp("built")) as wheel:
        yield wheel


def test_what_the_wheel_holds(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"mlomae"}
    configs = {name.removeprefix("mlomae/") for name in names if name.startswith("mlomae/configs/")}
    bases = {name for name in configs if name.startswith("configs/_base_/")}
    recipes = (path for task in ("pretrain", "classification") for path in ROOT.glob(f"configs/{task}/*.py"))
    assert configs - bases == {f"configs/{path.parent.name}/{path.name}" for path in recipes}
    assert "configs/_base_/mae.py" in bases
    assert "configs/_base_/upernet.py" not in bases, "recipes of tasks that need the checkout"
    modules = {f"mlomae/{path.relative_to(ROOT / 'mlomae').as_posix()}" for path in (ROOT / "mlomae").rglob("*.py")}
    assert {name for name in names if name.startswith("mlomae/")} - {f"mlomae/{c}" for c in configs} == {
        *modules,
        "mlomae/py.typed",
    }


@pytest.mark.slow
def test_its_commands_work_in_an_empty_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "installed")
    empty = tmp_path / "empty"
    empty.mkdir()
    write_photos(empty / "photos")
    environment = {**tiny.environment(), "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", SCRIPT, json.dumps([*COMMANDS, *CHECKOUT]), json.dumps(SMALL)]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, *statuses = json.loads(done.stdout.splitlines()[-1])
    assert Path(file).is_relative_to(tmp_path)
    assert statuses == [0] * len(COMMANDS) + [2] * len(CHECKOUT), done.stderr
    refused = done.stderr.splitlines()[-len(CHECKOUT) :]
    for line, (name, *_) in zip(refused, CHECKOUT, strict=True):
        assert line.startswith(f"error: `mlomae {name}` needs a checkout of the repository"), line
    exported = {"encoder.safetensors", "encoder.images.npz"}
    used = {"photos", "features.npz", "classifier", "predictions.csv"}
    assert {path.name for path in empty.iterdir()} == {"run", "masks.png", "masks.json", "demo", *exported, *used}
    assert json.loads((empty / "run" / "record.json").read_text())["git_commit"] is None


def test_an_editable_install_puts_the_whole_checkout_on_the_path(source: Path, tmp_path: Path) -> None:
    """With `mlomae` it makes `benchmarks` importable from every folder."""
    with build("editable", source, tmp_path) as installed:
        (file,) = [name for name in installed.namelist() if name.endswith(".pth")]
        assert installed.read(file).decode().strip() == str(source)


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    text = wheel.read(name).decode()
    for field in ("Author", "Keywords", "Project-URL", "License-Expression", "Classifier", "Requires-Python"):
        assert f"\n{field}: " in text, field
    assert "Classifier: Typing :: Typed" in text
    for version in ("3.10", "3.14"):
        assert f"Classifier: Programming Language :: Python :: {version}\n" in text
    assert "opencv" not in text, "the core does without it"


def test_the_sdist_holds_what_the_tests_need(tmp_path: Path) -> None:
    """All files of the repository but its hidden ones, and the same wheel comes of it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout")
    files = {name for name in listed.stdout.split("\0") if name and not name.startswith(".") and (ROOT / name).exists()}
    for name in files:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    (tmp_path / "source" / "work_dirs").mkdir()
    (tmp_path / "source" / "work_dirs" / "x.pth").touch()
    (tmp_path / "built").mkdir()
    with tarfile.open(make("sdist", tmp_path / "source", tmp_path / "built")) as sdist:
        held = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    added = {name for name in held - files if not name.startswith("mlomae.egg-info/")}
    assert (files - held, added) == (set(), {"PKG-INFO", "setup.cfg"})
