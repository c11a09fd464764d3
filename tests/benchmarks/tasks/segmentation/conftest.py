"""Applies to every test of this folder."""

from pathlib import Path

import pytest
import seg_runs
from single_thread import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `seg_runs.write_data`. Nothing may write into it."""
    return seg_runs.write_data(tmp_path_factory.mktemp("data") / "scenes")
