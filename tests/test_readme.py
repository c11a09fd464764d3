"""What the README says can be done in ten lines is ten lines, and works as it is printed."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torchvision

import mlomae
from mlomae.cli import main
from mlomae.config.plugins import import_plugins
from mlomae.data import build_source
from mlomae.data.registry import _DATASETS
from mlomae.masking import MaskState, create
from mlomae.masking.base import _STRATEGIES

README = Path(__file__).parents[1] / "README.md"


def snippets(heading: str) -> list[str]:
    """The blocks of Python beneath a heading: at most ten lines that say something, imports not counted."""
    section = re.search(rf"^## {heading}\n(.*?)^## ", README.read_text(encoding="utf-8"), re.S | re.M)
    assert section, f"no heading '{heading}'"
    blocks: list[str] = re.findall(r"```python\n(.*?)```", section[1], re.S)
    for block in blocks:
        lines = [line for line in block.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert 0 < len(lines) <= 10
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
    method, config = snippets("Add a method in ten lines")
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
    (data_set,) = snippets("Add a data set in ten lines")
    plugin.write_text(data_set)
    import_plugins(["my_plugin"])
    train, test = (build_source({"type": "stl10", "root": "data", "split": split}) for split in ("train", "test"))
    assert (len(train), train.image(0).shape, train.labels[1]) == (6, (3, 96, 96), 1)
    assert train.locations.isdisjoint(test.locations)
    assert train.fingerprint() != test.fingerprint()


def test_what_is_called_from_python_takes_these_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def stub(name: str) -> Any:
        signature = inspect.signature(getattr(mlomae, name))

        def call(*args: Any, **options: Any) -> Any:
            signature.bind(*args, **options)
            called.append(name)
            return (None, None)

        return call

    stubs = {name: stub(name) for name in ("pretrain", "embed", "create_backbone")}
    for name, function in stubs.items():
        monkeypatch.setattr(mlomae, name, function, raising=False)
    (script,) = snippets("From Python")
    exec(script, {})
    assert called == ["pretrain", "embed", "create_backbone"]
