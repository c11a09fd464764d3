"""Steps on an accelerator, without one: `tests/device`, each file in a process of its own (the conftest says why)."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "device").glob("test_*.py")), ids=lambda path: path.stem)
def test_nothing_waits_for_a_device_and_no_devices_mix(path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not gpu", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=tiny.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
