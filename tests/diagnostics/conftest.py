"""Finished tiny runs for the tests of the diagnostics; nothing may write into their folders."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from mlomae.common.checkpoint import list_checkpoints
from mlomae.pretraining.run import run_pretraining


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _run(folder: Path, **changes: object) -> Path:
    run_pretraining(tiny.config(data__eval=None, train__outer_iterations=4, **changes), folder)
    return list_checkpoints(folder)[-1]


@pytest.fixture(scope="package")
def linear_checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learned mask with a trained linear head."""
    return _run(tmp_path_factory.mktemp("linear"), name="diagnosed_linear")


@pytest.fixture(scope="package")
def mae_checkpoint(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random masks: the linear head of its configuration was never trained."""
    return _run(tmp_path_factory.mktemp("mae"), name="diagnosed_mae", **tiny.RANDOM)
