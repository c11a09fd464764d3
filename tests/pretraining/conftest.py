"""Finished tiny runs, shared by the tests of pretraining. Nothing may write into their folders."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from mlomae.pretraining.run import run_pretraining


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Bit-identity is promised for equal numbers of threads; child processes of these tests use one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def learned_run(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("learned")
    run_pretraining(tiny.config(name="learned"), work, records_dir=work / "records")
    return work


@pytest.fixture(scope="package")
def random_run(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("random")
    run_pretraining(tiny.config(name="random", **tiny.RANDOM), work)
    return work
