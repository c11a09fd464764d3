"""Tests of steps on an accelerator run by themselves: ``pytest tests/device``, as `tests/test_device.py` does.

Among others they would give the process a device (`simulated`), after which its forks cannot train.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if all(path.is_relative_to(HERE) for path in asked) else True
