"""The console: short lines, a display on terminals alone, and readers that go."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from mlomae.cli import main
from mlomae.common import console
from mlomae.common.errors import DataError, refuse

LONG = "a warning of many words that goes on and on, " * 8 + "/a/path/that/is/" + "long/" * 30
SHOW = """
import time
from mlomae.common.console import say, stage
with stage("outer", 2) as bar:
    with stage("inner", 5) as inner:
        for _ in range(5):
            inner.advance(said="loss 0.5")
        time.sleep(0.3)
    say("a [bold]line[/bold] above the display")
    bar.advance()
"""


def test_lines_are_short_and_paths_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(LONG)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    assert all(len(line) <= console.WIDTH or line.split()[0].startswith("/a/path") for line in lines)
    assert "".join("".join(lines).split()) == "".join(LONG.split())


def test_other_ranks_are_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    console.say("text")
    with console.stage("training", 3) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_elsewhere_than_on_a_terminal_there_is_no_display() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], env=tiny.environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a [bold]line[/bold] above the display\n", "")


def on_terminal(code: str, columns: int = 150) -> str:
    """What a program writes to a terminal."""
    ours, theirs = pty.openpty()
    environment: dict[str, Any] = {**tiny.environment(), "TERM": "xterm", "COLUMNS": str(columns)}
    running = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's end of a terminal
            part = b""
        if not part:
            break
        text += part
    assert running.wait() == 0, text
    os.close(ours)
    return text.decode()


def test_a_terminal_shows_every_stage_and_lines_above_it() -> None:
    text = on_terminal(SHOW)
    for words in ("outer", "inner", "5/5", "loss 0.5", "a [bold]line[/bold] above the display"):
        assert words in text


def test_on_a_narrow_terminal_labels_are_cut_and_numbers_stay_whole() -> None:
    label = "Mask R-CNN, MLO-MAE (nca, mask pooling), the third of its seeds"
    text = on_terminal(
        "import time\nfrom mlomae.common.console import PERCENT, stage\n"
        f"with stage('demo', PERCENT) as bar, stage('{label}', PERCENT) as run:\n"
        "    run.advance(100); bar.advance(7); time.sleep(0.6)",
        columns=80,
    )
    for words in ("Mask R-CNN, MLO-MAE (n", "…", "100 %", "7 %", "0:00:00", " left"):
        assert words in text
    assert "mask pooling" not in text


def run_without_reader(code: str) -> tuple[int, str]:
    """Status and standard error of a program of whose output one line is read."""
    running = subprocess.Popen(
        [sys.executable, "-c", code], env=tiny.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    error = running.stderr.read()
    return running.wait(), error


WAIT = "import sys, time; from mlomae.cli import main; print('line', flush=True); time.sleep(0.5); "


@pytest.mark.parametrize("command", ["['data', 'check', 'textures']", "['--help']"])
def test_a_reader_that_goes_is_no_error(command: str) -> None:
    status, error = run_without_reader(f"{WAIT}sys.exit(main({command}))")
    assert error == ""
    assert status in (0, console.GONE)


def test_training_ends_quietly_without_its_reader(tmp_path: Path) -> None:
    """Not as on a full disk: what the log says is written while it trains."""
    config = tiny.write_config(tmp_path / "config.py", **tiny.RANDOM, data__eval=None, train__outer_iterations=50)
    arguments = ["pretrain", str(config), "--work-dir", str(tmp_path / "work")]
    status, error = run_without_reader(f"from mlomae.cli import main; raise SystemExit(main({arguments}))")
    assert (status, error) == (console.GONE, "")
    assert not (tmp_path / "work" / "record.json").exists()


def test_a_broken_pipe_elsewhere_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert refuse(BrokenPipeError(32, "Broken pipe")) == 2
    assert "Broken pipe" in capsys.readouterr().err
    error = DataError("training stopped")
    error.__cause__ = BrokenPipeError(32, "Broken pipe")
    assert not console.reader_gone(error), "standard output has its reader"


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for before, after in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
        if before is None:
            monkeypatch.delenv("OMP_WAIT_POLICY")
        with pytest.raises(SystemExit):
            main(["--help"])
        assert os.environ["OMP_WAIT_POLICY"] == after
