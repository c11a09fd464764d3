"""A three-level problem whose answer is known: reconstructing objects teaches the feature that the upper loss needs.

θ = (a, b), both starting at 0. The error of an object patch is (1 − a)²·d, that of a background patch (1 − b)²·d + 1
with a difficulty d > 0 of its own; the upper loss is (1 − a)². Raising a lowers both the objects' error and the upper
loss, so objects have I = ∂rec/∂a · ∂L_III/∂a = (−2d)(−2) = 4d > 0 and the background has I = 0.

Shape legend: B images, L patches.
"""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mlomae.multilevel import Params, ThreeLevelProblem

B, L = 8, 16


def theta() -> Params:
    return {"a": torch.zeros((), dtype=torch.float64), "b": torch.zeros((), dtype=torch.float64)}


def batch(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.rand(B, L, generator=generator, dtype=torch.float64)  # noqa: E731
    return {"object": draw() < 0.3, "mask": (draw() < 0.75).double(), "difficulty": 0.5 + draw()}


def errors(theta: Params, batch: dict[str, Tensor]) -> Tensor:
    objects = batch["difficulty"] * (1 - theta["a"]) ** 2
    return torch.where(batch["object"], objects, batch["difficulty"] * (1 - theta["b"]) ** 2 + 1)


def problem() -> ThreeLevelProblem:
    return ThreeLevelProblem(
        lower=lambda theta, phi, batch: errors(theta, batch).mean(),
        features=lambda theta, batch: theta["a"].expand(len(batch["object"])),
        head_loss=lambda omega, z, batch: (1 - z).square().mean(),
    )


def mutant(module: ModuleType, folder: Path, old: str, new: str) -> Any:
    """``module`` with a piece of its text replaced, imported under a name of its own."""
    assert module.__file__ is not None
    text = Path(module.__file__).read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times: the mutation is out of date"
    path = folder / f"mutant_{Path(module.__file__).stem}.py"
    path.write_text(text.replace(old, new))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
