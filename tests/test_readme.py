"""What the README says can be done in ten lines is ten lines, and works."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from mlomae.common.registry import Registry
from mlomae.data import MemorySource, Source
from mlomae.masking import MaskingStrategy, MaskState, UnweightedMasking

README = Path(__file__).parents[1] / "README.md"


def snippet(heading: str) -> str:
    """The first block of code beneath a heading: at most ten lines that say something."""
    found = re.search(rf"## {heading}\n.*?```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert found, f"no heading '{heading}' with a block of code"
    assert len([line for line in found[1].splitlines() if line.strip()]) <= 10
    return found[1]


def test_a_method_in_ten_lines() -> None:
    strategies = Registry[MaskingStrategy]("masking strategy")
    names = {"register": strategies.register, "UnweightedMasking": UnweightedMasking, "torch": torch}
    exec(snippet("Add a method in ten lines"), names)
    centre = strategies.build("centre", {"noise": 0.0}, embed_dim=8, grid=(4, 4))
    mask = centre(torch.zeros(2, 16, 8), torch.zeros(2, 3, 16, 16), 0.25, 0, MaskState(torch.tensor([3, 4])))
    assert mask.mask.reshape(2, 4, 4)[:, 1:3, 1:3].eq(1).all(), "the four patches of the centre are removed"
    assert mask.mask.sum().item() == 8


def test_a_data_set_in_ten_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def images(root: str, split: str) -> Any:
        data = np.full((6, 3, 96, 96), len(split), dtype=np.uint8)
        return SimpleNamespace(data=data, labels=np.arange(6) % 2, classes=["a", "b"], base_folder="stl10_binary")

    monkeypatch.setattr(torchvision.datasets, "STL10", images)
    sources = Registry[Source]("data set")
    names = {"register_dataset": sources.register, "MemorySource": MemorySource}
    exec(snippet("Add a data set in ten lines"), {**names, "torch": torch, "torchvision": torchvision})
    train, test = (sources.build("stl10", {"root": "data", "split": split}) for split in ("train", "test"))
    assert (len(train), train.image(0).shape, train.labels[1]) == (6, (3, 96, 96), 1)
    assert train.locations.isdisjoint(test.locations)
    assert train.fingerprint() != test.fingerprint()
