"""The core asks for OpenCV nowhere: it works where opencv-python lacks its libraries, as in slim containers."""

import json
import subprocess
import sys
from pathlib import Path

import tiny

TRAP = """
import traceback
from pathlib import Path

Path({path!r}).write_text("".join(traceback.format_stack()))
raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
"""
SCRIPT = """
import json, sys
from mlomae.cli import main
for command in json.loads(sys.argv[1]):
    assert main(command) == 0, command
"""


def test_commands_of_the_core_never_ask_for_it(tmp_path: Path) -> None:
    asked, package = tmp_path / "asked", tmp_path / "path" / "cv2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TRAP.format(path=str(asked)))
    config = tiny.write_config(tmp_path / "tiny.py", train__outer_iterations=2)
    checkpoint = str(tmp_path / "run" / "checkpoints" / "iter_2.pth")
    commands = [
        ["pretrain", str(config), "--work-dir", str(tmp_path / "run"), "--cfg-options", "data.num_workers=1"],
        ["evaluate", checkpoint],
        ["export", checkpoint, str(tmp_path / "encoder.safetensors")],
    ]
    environment = tiny.environment()
    environment["PYTHONPATH"] = f"{package.parent}:{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, "-c", SCRIPT, json.dumps(commands)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not asked.exists(), asked.read_text()
