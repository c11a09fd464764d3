"""The devices on which tests of steps run: the simulated one, and under the marker ``gpu`` a CUDA device."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from simulated import SUPPORTED, Simulated, place_of

NEEDS_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
NEEDS_BACK_END = pytest.mark.skipif(
    not SUPPORTED, reason="needs a torch that takes a back-end in Python (2.6 does not), and no GPU"
)
DEVICES = [pytest.param("sim", marks=NEEDS_BACK_END), pytest.param("cuda", marks=NEEDS_CUDA)]


@dataclass
class Device:
    """``found`` is what `Simulated` finds, since `watch` began; a CUDA device reports where the host waits, alone."""

    name: str
    found: list[str] = field(default_factory=list)

    @contextmanager
    def watch(self) -> Iterator[None]:
        self.found.clear()
        with _warned(self.found) if self.name == "cuda" else nullcontext():
            yield

    def close(self, ours: Mapping[str, Any], theirs: Mapping[str, Any], tolerance: float) -> None:
        """Assert that losses here are those of the CPU, up to ``tolerance`` (a GPU: up to a thousandth)."""
        bound = tolerance if self.name == "sim" else max(tolerance, 1e-3)
        assert {k: float(v) for k, v in ours.items()} == pytest.approx(
            {k: float(v) for k, v in theirs.items()}, rel=bound
        )


@contextmanager
def opened(name: str) -> Iterator[Device]:
    """The device ``name``."""
    if name == "sim":
        with Simulated() as mode:
            yield Device(name, mode.found)
    else:
        yield Device(name)


@contextmanager
def _warned(found: list[str]) -> Iterator[None]:
    """Within the block ``found`` grows by every place at which the host waits for a CUDA device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", message=".*synchronizing CUDA operation")
            warnings.showwarning = lambda message, *_: found.append(f"waits: {place_of(message)}")
            yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def unexpected(found: list[str], known: Mapping[str, str]) -> list[str]:
    """``found`` without the ``known``: beginnings of entries, each with its reason."""
    return [entry for entry in dict.fromkeys(found) if not entry.startswith(tuple(known))]
