"""Worker processes of loaders."""

import subprocess
import sys

HELD = """
import multiprocessing, time
from mlomae.common.workers import leave_signals_to_parent

def work(started):
    leave_signals_to_parent(0)
    started.set()
    time.sleep(600)

if __name__ == "__main__":
    started = multiprocessing.Event()
    multiprocessing.Process(target=work, args=(started,), daemon=True).start()
    started.wait()
"""


def test_a_program_ends_whose_loader_still_has_workers() -> None:
    subprocess.run([sys.executable, "-c", HELD], check=True, timeout=60)
