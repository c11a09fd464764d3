"""What README and docs/ print works as it is printed, code, command lines and links; the reference is the code's."""

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_slurm
import numpy as np
import pytest
import timm
import tiny
import torch
import torchvision
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, TRANSFORMS
from torch.distributed.run import get_args_parser

import mlomae
from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import Planner
from benchmarks.suite.launch import check_jobs, process_count
from mlomae.cli import build_parser, main
from mlomae.config.plugins import import_plugins
from mlomae.data import build_source
from mlomae.data.registry import _DATASETS
from mlomae.masking import MaskState, create
from mlomae.masking.base import _STRATEGIES

ROOT = Path(__file__).parents[1]
PAGES = [path for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]) if "_build" not in path.parts]


def snippets(page: str) -> list[str]:
    """The blocks of Python of a page; where it promises ten lines, that say something, imports not counted."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```python\n(.*?)```", text, re.S)
    for block in blocks:
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert 0 < len(lines) <= 10 or "in ten lines" not in text
    return blocks


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module `my_plugin`, which is forgotten afterwards with all that it registers."""
    monkeypatch.syspath_prepend(str(tmp_path))
    registries = {registry: dict(registry._builders) for registry in (_STRATEGIES, _DATASETS)}
    yield tmp_path / "my_plugin.py"
    sys.modules.pop("my_plugin", None)
    for registry, builders in registries.items():
        registry._builders = builders


def test_a_method_in_ten_lines(plugin: Path, tmp_path: Path) -> None:
    method, config = snippets("how-to/strategy")
    plugin.write_text(method)
    path = tiny.write_config(tmp_path / "config.py", train__outer_iterations=2, data__eval=None)
    path.write_text(path.read_text() + config.replace("my_masks", "my_plugin"))
    assert main(["pretrain", str(path), "--work-dir", str(tmp_path / "work")]) == 0
    centre = create("centre", embed_dim=8, grid=(4, 4), noise=0.0)
    mask = centre(torch.zeros(2, 16, 8), torch.zeros(2, 3, 16, 16), 0.25, 0, MaskState(torch.tensor([3, 4])))
    assert mask.mask.reshape(2, 4, 4)[:, 1:3, 1:3].eq(1).all(), "the four patches of the centre are removed"
    assert mask.mask.sum().item() == 8


def test_a_data_set_in_ten_lines(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def images(root: str, split: str) -> Any:
        data = np.full((6, 3, 96, 96), len(split), dtype=np.uint8)
        return SimpleNamespace(data=data, labels=np.arange(6) % 2, classes=["a", "b"], base_folder="stl10_binary")

    monkeypatch.setattr(torchvision.datasets, "STL10", images)
    (data_set,) = snippets("how-to/data")
    plugin.write_text(data_set)
    import_plugins(["my_plugin"])
    train, test = (build_source({"type": "stl10", "root": "data", "split": split}) for split in ("train", "test"))
    assert (len(train), train.image(0).shape, train.labels[1]) == (6, (3, 96, 96), 1)
    assert train.locations.isdisjoint(test.locations)
    assert train.fingerprint() != test.fingerprint()


def test_what_is_called_from_python_takes_these_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def stub(of: Any, name: str) -> Any:
        signature = inspect.signature(getattr(of, name))

        def call(*args: Any, **options: Any) -> Any:
            signature.bind(*args, **options)
            called.append(name)
            return (None, None)

        return call

    for of, names in ((mlomae, ("pretrain", "embed", "create_backbone")), (timm, ("create_model",))):
        for name in names:
            monkeypatch.setattr(of, name, stub(of, name), raising=False)
    for block in snippets("how-to/weights"):
        exec(block, {"timm": timm})
    assert called == ["create_model", "pretrain", "embed", "create_backbone"]


def test_the_equations_in_code_are_theirs() -> None:
    """On L_I = |θ − φ|²/2, ω fixed: v = θ·a, g_φ = −(−1)·v."""
    theta, phi = ({"w": torch.tensor([value], dtype=torch.float64)} for value in (2.0, 3.0))
    given = {
        "lower": lambda th, ph, x: 0.5 * ((th["w"] - ph["w"]) ** 2).sum(),
        "features": lambda th, batch: th["w"] * batch["a"],
        "head_loss": lambda om, z, batch: 0.5 * (z**2).mean() + 0.0 * om["w"].sum(),
        "theta": theta,
        "phi": phi,
        "omega": {"w": torch.zeros(1, dtype=torch.float64)},
        "x": {"a": torch.ones(1, dtype=torch.float64)},
    }
    (block,) = snippets("concepts")
    exec(block, names := given | {"a": given["x"], "b": given["x"]})
    assert names["g_phi"]["w"].item() == pytest.approx(2.0, abs=1e-12)


def test_names_in_a_config_of_mmseg_or_mmdet_are_registered() -> None:
    (block,) = snippets("how-to/transfer")
    exec(block, names := {})  # type: ignore[var-annotated]
    for module in names["custom_imports"]["imports"]:
        importlib.import_module(module)
    assert MODELS.get(names["model"]["backbone"]["type"])
    assert TRANSFORMS.get(names["train_pipeline"][0]["type"])
    assert OPTIM_WRAPPER_CONSTRUCTORS.get(names["optim_wrapper"]["constructor"])


def test_the_suite_for_a_cluster_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    fake_slurm.install(tmp_path, monkeypatch)
    (block,) = snippets("how-to/cluster")
    (tmp_path / "suite.py").write_text(block)
    jobs = Planner(load_suite(tmp_path / "suite.py"), tmp_path / "work").jobs()
    check_jobs("slurm", tmp_path / "submitit", jobs)
    assert [process_count(job.cluster) for job in jobs] == [16, 16, 1, 1]


def test_every_block_of_python_is_executed_here() -> None:
    with_code = [path for path in PAGES if "```python" in path.read_text(encoding="utf-8")]
    assert {path.stem for path in with_code} == {"strategy", "data", "weights", "concepts", "transfer", "cluster"}


def lines_of(text: str, program: str) -> list[str]:
    """The command lines in ``text`` that run ``program``, which may be in .venv/bin: what follows its name."""
    found = re.findall(rf"(?m)^(?: {{4}}|`|)(?:\.venv/bin/)?{program} ([^#`\n]*)", text)
    return [re.sub(r"[\[\]]", "", line).strip() for line in found]  # [--optional]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_command_lines_are_taken(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding="utf-8")
    commands = lines_of(text, "mlomae") if page.parent.name != "reference" else []
    for line in lines_of(text, "torchrun"):
        ranks = get_args_parser().parse_args(shlex.split(line))
        assert (ranks.module, ranks.training_script) == (True, "mlomae.cli"), line
        commands.append(shlex.join(ranks.training_script_args))
    for line in commands:
        parsed, unknown = build_parser().parse_known_args(shlex.split(line))
        assert unknown == [] or parsed.command == "data", line
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets, given = re.findall(r"(?m)^([a-z-]+):", makefile), re.findall(r"(?m)^([A-Z_]+) :=", makefile)
    for line in lines_of(text, "make"):
        for word in shlex.split(line):
            name, is_variable, _ = word.partition("=")
            assert name in (given if is_variable else targets), f"make {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    for link in (link for link in links if not link.startswith("http")):
        assert (page.parent / link).exists(), link


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links to headings, pages that no other lists."""
    pytest.importorskip("sphinx")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "-E",
        "-c",
        str(ROOT / "docs"),
        str(ROOT),
        str(tmp_path / "site"),
    ]
    run = subprocess.run([*command, "-d", str(tmp_path / "trees")], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert "three levels" in (tmp_path / "site" / "docs" / "concepts.html").read_text(encoding="utf-8").lower()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse and annotations print differently")
def test_the_reference_is_what_the_code_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by `python docs/generate.py`."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.setenv("COLUMNS", "110")
    for path, text in importlib.import_module("generate").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `python docs/generate.py`"
