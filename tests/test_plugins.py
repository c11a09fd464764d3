"""A package outside mlomae registers a strategy, a feedback, an auxiliary loss and a data set; every command takes its
runs, and nothing that a checkpoint names is imported unasked."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cls_runs
import pytest
import tiny
import torch

import mlomae.masking
from mlomae.cli import main
from mlomae.common import checkpoint
from mlomae.common.errors import ConfigError
from mlomae.common.registry import load_entry_points
from mlomae.config.plugins import UNKNOWN, changed_plugins, import_plugins, imports_of, plugin_digest
from mlomae.config.schema import config_from_dict, load_config

PACKAGE = {
    "noise.py": "NOISE = 0.1\n",
    "__init__.py": "",
    "masks.py": """
import mlomae
import torch
from mlomae.masking import UnweightedMasking
from .noise import NOISE

@mlomae.register_strategy("centre")
class Centre(UnweightedMasking):
    def __init__(self, embed_dim, grid):
        super().__init__(embed_dim, grid)
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in grid), indexing="ij")
        self.register_buffer("score", -(x**2 + y**2).flatten())

    def ranking(self, images, ratio, state):
        return self.score + NOISE * state.uniform(len(self.score))
""",
    "others.py": """
import mlomae
import torch
from mlomae.auxiliary import AuxiliaryLoss, register as register_auxiliary
from mlomae.data import MemorySource
from mlomae.feedback import register as register_feedback
from mlomae.feedback.joint import NCAFeedback

@register_feedback("near")
class Near(NCAFeedback):
    pass

@register_auxiliary("small")
class Small(AuxiliaryLoss):
    def __init__(self, embed_dim, num_classes):
        super().__init__(weight=1.0)

    def forward(self, seen):
        return 1e-3 * seen.latents_BKD.square().mean()

@mlomae.register_dataset("dots")
class Dots(MemorySource):
    def __init__(self, split="train", root=None):
        images = torch.randint(256, (48, 3, 16, 16), generator=torch.Generator().manual_seed(len(split)))
        where = [f"dots {split}"]
        super().__init__("dots", split, "dots", ["a", "b"], images.byte(), torch.arange(48).numpy() % 2, where)
""",
}
TASK = """
from mlomae.classification.run import ClassificationSteps
from mlomae.backbones.task import Metric, Task, register_task

class Steps(ClassificationSteps):
    pass

CONFIG = "mlomae.classification.config:ClassificationConfig"
register_task(Task("again", "Again", (Metric("top1", "top-1"),), CONFIG, f"{__name__}:Steps", "outputs"))
"""
SOURCE = {"type": "dots", "split": "train"}
RUN: dict[str, Any] = {
    "name": "outside",
    "method": "centre",
    "mask": {"type": "centre", "ratio": 0.75},
    "feedback": {"type": "near"},
    "auxiliary": {"type": "small"},
    "data__train": SOURCE,
    "data__eval": {**SOURCE, "split": "test"},
    "train__outer_iterations": 4,
}
IMPORTS = {"imports": ["my_package.masks", "my_package.others"]}
FLAG = ["--custom-imports", *IMPORTS["imports"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, not in the tree, that holds ``my_package``."""
    folder = tmp_path_factory.mktemp("outside")
    write_package(folder)
    return folder


def write_package(folder: Path, name: str = "my_package") -> None:
    (folder / name).mkdir()
    for file, text in PACKAGE.items():
        (folder / name / file).write_text(text)


def run(folder: Path, *commands: list[object]) -> list[tuple[int, str]]:
    """Exit status and last line on standard error of each command, all in one fresh process that finds ``folder``."""
    script = """
import contextlib, io, json, sys
from mlomae.cli import main
found = []
for command in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = main(command)
    found.append([status, (err.getvalue().splitlines() or [""])[-1]])
print(json.dumps(found))
"""
    environment = tiny.environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    given = json.dumps([[str(argument) for argument in command] for command in commands])
    command = [sys.executable, "-c", script, given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [(status, line) for status, line in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def work(folder: Path) -> Path:
    """The work dir of a run that uses the package."""
    config = tiny.write_config(folder / "config.py", custom_imports=IMPORTS, **RUN)
    ((status, line),) = run(folder, ["pretrain", config, "--work-dir", folder / "work"])
    assert status == 0, line
    return folder / "work"


def test_the_plugins_travel_in_checkpoint_and_record(work: Path) -> None:
    saved = checkpoint.load_checkpoint(checkpoint.checkpoint_path(work, 4))["config"]
    record = json.loads((work / "record.json").read_text())
    assert saved["custom_imports"] == record["config"]["custom_imports"] == IMPORTS
    assert saved["mask"]["type"] == "centre"
    assert list(record["plugins"]) == IMPORTS["imports"]


def test_every_command_takes_the_run_and_names_its_plugins_first(work: Path, folder: Path) -> None:
    path, last = checkpoint.checkpoint_path(work, 2), checkpoint.checkpoint_path(work, 4)
    small = ["--batches", "2"]
    commands: list[list[object]] = [
        ["evaluate", path],
        ["masks", "--checkpoints", path, "--out", folder / "masks.png", "--count", "2"],
        ["diagnose", path, "--batch-size", "4", *small],
        ["horizon", path, "--steps", "1", "--policies", "2", *small],
    ]
    before = checkpoint.load_checkpoint(last)
    last.unlink()
    export = ["export", path, folder / "encoder.safetensors"]
    resume = ["pretrain", folder / "config.py", "--work-dir", work, "--resume"]
    *refused, exported, resumed = run(folder, *commands, export, resume)
    for status, line in refused:
        assert status == 2
        assert "(my_package.masks my_package.others)" in line
        assert "add --custom-imports my_package.masks my_package.others" in line
    assert exported == (0, ""), "the encoder's weights need no code of anybody"
    assert resumed == (0, ""), "the user named the configuration file"
    assert tiny.state_differences(before, checkpoint.load_checkpoint(last)) == []
    assert run(folder, *([*command, *FLAG] for command in [*commands, export])) == [(0, "")] * 5
    assert (folder / "masks.png").is_file()


def test_an_entry_point_registers_as_well(tmp_path: Path) -> None:
    """A package that is installed with an entry point needs no custom_imports; a recipe may name its task itself."""
    write_package(tmp_path, "other_package")
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (tmp_path / "other_package" / "task.py").write_text(TASK)
    points = "".join(f"{name} = other_package.{name}\n" for name in ("masks", "others"))
    (info / "entry_points.txt").write_text(f"[mlomae.plugins]\n{points}")
    config = tiny.write_config(tmp_path / "config.py", **RUN)
    data = {"data__train": SOURCE, "data__test": {**SOURCE, "split": "test"}, "train__epochs": 1}
    data |= {"custom_imports": {"imports": ["other_package.task"]}, "backbone__model": None}
    transfer = cls_runs.write_config(tmp_path / "transfer.py", **data)
    work, path = tmp_path / "work", tmp_path / "work" / "checkpoints" / "iter_4.pth"
    bench = ["bench", "again", transfer, "--weights", path, "--work-dir", tmp_path / "again"]
    commands = ["pretrain", config, "--work-dir", work], ["evaluate", path], bench
    assert run(tmp_path, *commands) == [(0, "")] * 3
    for folder, used in ((work, ["masks", "others"]), (tmp_path / "again", ["others", "task"])):
        plugins = json.loads((folder / "record.json").read_text())["plugins"]
        assert list(plugins) == [f"other_package.{name}" for name in used], "those that the run has used"
        assert UNKNOWN not in plugins.values()


def test_an_entry_point_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = importlib.metadata.EntryPoint("masks", "nothing_like_it.masks", "mlomae.plugins")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [broken] * (group == "mlomae.plugins"))
    load_entry_points.cache_clear()
    refusal = r"plug-in 'nothing_like_it\.masks' of .* cannot be imported \(ModuleNotFoundError: No module named"
    for _ in range(2):
        with pytest.raises(ConfigError, match=refusal):
            mlomae.list_strategies()
    assert mlomae.masking.is_trainable("learned"), "what is registered does not wait for plug-ins"


def test_reading_a_checkpoint_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "trap.py").write_text("raise SystemExit('code ran')\n")
    with pytest.raises(ConfigError, match=r"\(trap\), which is not imported"):
        config_from_dict(tiny.values(custom_imports={"imports": ["trap"]}))
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("nowhere", ["'nowhere' cannot be found", "PYTHONPATH", "pip install -e"]),
        ("mlomae.nowhere", ["'mlomae.nowhere' cannot be found"]),
        ("lacking", ["'lacking' cannot be imported", "No module named 'nothing_like_it'"]),
        ("failing", ["'failing' cannot be imported", "ZeroDivisionError"]),
        ("twice", ["'twice' cannot be imported", "masking strategy 'random' is registered twice"]),
    ],
)
def test_a_module_that_does_not_import(
    module: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lacking.py").write_text("import nothing_like_it\n")
    (tmp_path / "failing.py").write_text("1 / 0\n")
    (tmp_path / "twice.py").write_text("import mlomae\nmlomae.register_strategy('random')(int)\n")
    config = tiny.write_config(tmp_path / "config.py", custom_imports={"imports": [module]})
    assert main(["pretrain", str(config), "--work-dir", str(tmp_path / "work")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (["my_package"], "must be dict"),
        ({"imports": ["os"], "allow_failed": False}, "must be dict"),
        ({"imports": ["os"], "allow_failed_imports": True}, "'custom_imports.allow_failed_imports' is not supported"),
        ({"imports": 3}, "must be a list of modules"),
        ({"imports": ["my_package/masks.py"]}, "takes modules"),
        ({"imports": [".masks"]}, "takes modules"),
    ],
)
def test_a_wrong_section(section: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        imports_of(section)


def test_a_file_without_plugins_keeps_its_values(tmp_path: Path) -> None:
    path = tiny.write_config(tmp_path / "config.py", custom_imports={"imports": [], "allow_failed_imports": False})
    assert load_config(path).to_dict() == tiny.config().to_dict()
    assert "custom_imports" not in tiny.config().to_dict()


def test_digests_follow_what_a_module_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write_package(tmp_path, "digested")
    (tmp_path / "flat.py").write_text("import helper, torch, mlomae\nfrom digested import noise\n")
    (tmp_path / "helper.py").write_text("")
    modules = ["digested.masks", "digested.others", "flat"]
    before = plugin_digest(modules)
    assert list(before) == modules
    assert not {"digested", "flat", "helper"} & sys.modules.keys(), "nothing was imported"
    (tmp_path / "digested" / "noise.py").write_text("NOISE = 0.2\n")
    after = plugin_digest(modules)
    assert [module for module in modules if before[module] != after[module]] == ["digested.masks", "flat"]
    (tmp_path / "helper.py").write_text("x = 1\n")
    assert plugin_digest(["flat"]) != {"flat": after["flat"]}
    assert plugin_digest(["digested"]) != plugin_digest(["digested.masks"])
    assert plugin_digest(["nowhere", "__main__"]) == {"__main__": UNKNOWN, "nowhere": UNKNOWN}


def test_libraries_are_known_by_their_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own data sets, given to `mlomae.pretrain`, would take half a minute of reading torch."""
    monkeypatch.setattr("mlomae.config.plugins._sources", lambda module, root: pytest.fail(f"read {module}"))
    module = torch.utils.data.TensorDataset.__module__
    before = plugin_digest([module])[module]
    assert re.fullmatch("[0-9a-f]{16}", before)
    monkeypatch.setattr("mlomae.config.plugins.installed", lambda name: "99.0")
    assert plugin_digest([module])[module] != before


def test_a_record_knows_when_its_plugins_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "simple.py").write_text("x = 1\n")
    (tmp_path / "by_entry_point.py").write_text("y = 1\n")
    config = {"custom_imports": {"imports": ["simple"]}}
    record = {"config": config, "plugins": plugin_digest(["simple", "by_entry_point"])}
    assert changed_plugins(record) == []
    assert changed_plugins({"config": config}) == ["simple"], "a record without a digest"
    assert changed_plugins({"config": {}}) == []
    (tmp_path / "by_entry_point.py").write_text("y = 2\n")
    assert changed_plugins(record) == ["by_entry_point"]


def test_a_cell_that_runs_twice_replaces_its_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "cell.py").write_text(PACKAGE["masks.py"].replace("from .noise import NOISE", "NOISE = 0.0"))
    import_plugins(["cell"])
    from mlomae.masking.base import _STRATEGIES

    try:
        first = _STRATEGIES.get("centre")
        del sys.modules["cell"]
        import_plugins(["cell"])
        assert _STRATEGIES.get("centre") is not first
    finally:
        _STRATEGIES._builders.pop("centre")
        sys.modules.pop("cell")
