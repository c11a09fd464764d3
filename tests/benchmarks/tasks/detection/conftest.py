"""One thread, and the data of `det_runs`, for every test of this folder."""

from pathlib import Path

import det_runs
import pytest
from single_thread import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once; nothing may change it."""
    return det_runs.write_data(tmp_path_factory.mktemp("detection") / "coco")
