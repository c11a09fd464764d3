"""``mlomae suite`` in real processes: a small suite from its file to its tables, killed once on the way; submitit."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from run_samples import one_line
from suite_files import PRETRAINING, write_suite

from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import ROOT, load_suite
from benchmarks.suite.jobs import Planner
from benchmarks.suite.launch import cluster, create_executor
from benchmarks.suite.resumable import Resumable
from benchmarks.suite.runner import SuiteRunner
from benchmarks.suite.status import state_of
from mlomae.cli import main
from mlomae.common.errors import ConfigError
from mlomae.common.ownership import LOCK, owner_of
from mlomae.common.processes import start


def killed_at_the_first_checkpoint(command: list[str], log: Path, parameters: dict[str, Any]) -> int:
    with log.open("a") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        while process.poll() is None and not list(log.parent.glob("checkpoints/iter_*.pth")):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        return process.wait()


@pytest.mark.timeout(300)
def test_a_suite_that_is_killed_goes_on_and_ends_in_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = str(tmp_path / "classification" / "knn_a.py")
    methods = [{"method": "MAE", "config": str(tmp_path / "tiny.py")}]
    suite = write_suite(tmp_path, methods=methods, seeds=[0], tasks=[{"recipe": recipe}])
    text = PRETRAINING.replace("outer_iterations=2", "outer_iterations=150")
    (tmp_path / "tiny.py").write_text(text)
    records, work = tmp_path / "results" / "runs", tmp_path / "work"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    planner = Planner(load_suite(suite), work, records)
    first = SuiteRunner(planner, CompletedRuns(records), killed_at_the_first_checkpoint, 1, lambda line: None)
    assert not first.run()
    assert (first.failed, first.blocked) == (["suite_mae_seed0"], ["knn_a_mae_seed0"])
    reached = sorted((work / "suite_mae_seed0" / "checkpoints").glob("iter_*.pth"))
    assert reached
    assert not (work / "suite_mae_seed0" / "record.json").exists()

    arguments = [str(suite), "--records", str(records), "--work-dir", str(work)]
    assert main(["suite", "run", *arguments]) == 0
    out = capsys.readouterr().out
    assert "2 finished, 0 were on record, 0 failed" in out
    logged = json.loads((work / "suite_mae_seed0" / "record.json").read_text())
    assert logged["outer_iterations"] == 150
    assert (records / "suite_mae_seed0.json").is_file()
    assert "| MAE |" in (tmp_path / "results" / "classification.md").read_text()
    assert logged["config_hash"] in json.loads((tmp_path / "results" / "flops.json").read_text())
    assert "resum" in (work / "suite_mae_seed0" / "log.txt").read_text().lower()

    before = {path: path.stat().st_mtime_ns for path in records.iterdir()}
    assert main(["suite", "run", *arguments]) == 0
    assert "0 finished, 2 were on record" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in records.iterdir()} == before
    assert main(["suite", "status", *arguments]) == 0
    assert "2 done" in capsys.readouterr().out


def test_a_process_of_this_machine(tmp_path: Path) -> None:
    words = "import os, sys; print(os.environ['OMP_NUM_THREADS']); sys.exit(3)"
    assert start([sys.executable, "-c", words], tmp_path / "log.txt", threads=1) == 3
    assert (tmp_path / "log.txt").read_text() == "1\n"


@pytest.mark.parametrize(("ignored", "status"), [("", -signal.SIGTERM), ("SIGTERM", -signal.SIGKILL)])
def test_a_process_that_is_stopped_ends_within_five_seconds(tmp_path: Path, ignored: str, status: int) -> None:
    words = f"import signal, time; {ignored and f'signal.signal(signal.{ignored}, signal.SIG_IGN);'} print(flush=True)"
    log, stop = tmp_path / "log.txt", threading.Event()
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(start, [sys.executable, "-c", f"{words}; time.sleep(60)"], log, stop=stop)
        while not log.is_file() or not log.read_text():
            time.sleep(0.01)
        stop.set()
        assert ended.result(timeout=5) == status


@pytest.mark.timeout(120)
def test_a_suite_that_is_stopped_ends_its_runs_and_says_so(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, seeds=[0], tasks=[], methods=[{"method": "MAE", "config": str(tmp_path / "tiny.py")}])
    (tmp_path / "tiny.py").write_text(PRETRAINING.replace("outer_iterations=2", "outer_iterations=1000000"))
    folder = tmp_path / "work" / "suite_mae_seed0"
    options = ["--records", str(tmp_path / "records"), "--work-dir", str(tmp_path / "work")]
    command = [sys.executable, "-m", "mlomae.cli", "suite", "run", str(suite), *options]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("checkpoints/*.pth")):
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.05)
    assert owner_of(folder / LOCK)
    parent.send_signal(signal.SIGTERM)  # to this process alone
    deadline = time.monotonic() + 5
    while owner_of(folder / LOCK):
        assert time.monotonic() < deadline, "the run goes on"
        time.sleep(0.05)
    out, err = parent.communicate(timeout=30)
    assert parent.returncode == 130
    assert "stopping 1 run; the next start of the suite goes on" in out
    assert "interrupted; run it again" in one_line(err)
    assert "go on with --resume" in (folder / "log.txt").read_text()
    planner = Planner(load_suite(suite), tmp_path / "work", tmp_path / "records")
    assert state_of(planner.jobs()[0], CompletedRuns(tmp_path / "records"))[0] == "interrupted"


def begin(suite: Path, records: Path, work: Path) -> subprocess.Popen[str]:
    options = ["--records", str(records), "--work-dir", str(work)]
    command = [sys.executable, "-m", "mlomae.cli", "suite", "run", str(suite), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def one_pretraining_and_transfer(folder: Path, iterations: int) -> Path:
    recipe = str(folder / "classification" / "knn_a.py")
    methods = [{"method": "MAE", "config": str(folder / "tiny.py")}]
    suite = write_suite(folder, methods=methods, seeds=[0], tasks=[{"recipe": recipe}])
    text = PRETRAINING.replace("outer_iterations=2", f"outer_iterations={iterations}")
    (folder / "tiny.py").write_text(text.replace("checkpoint_interval=1", "checkpoint_interval=20"))
    return suite


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("works", ["one one", "one two"])
def test_suites_that_are_started_together_make_every_run_once(tmp_path: Path, works: str) -> None:
    suite, results = one_pretraining_and_transfer(tmp_path, 20), tmp_path / "results"
    suites = [begin(suite, results / "runs", tmp_path / work) for work in works.split()]
    said = [process.communicate() for process in suites]
    assert [process.returncode for process in suites] == [0, 0], said
    text = "".join(out for out, _ in said)
    for label in ("suite_mae_seed0", "knn_a_mae_seed0"):
        assert text.count(f"{label}: started") == 1, text
        assert text.count(f"{label}: another process has finished it") == 1
    assert "suite_mae_seed0: waiting for process" in text
    assert text.count("2 finished, 0 were on record, 0 failed") == 2
    assert "| MAE |" in (results / "classification.md").read_text()
    assert [path.name for path in results.rglob(".*")] == []
    assert len(list((results / "runs").rglob("*.*"))) == 3, "two records, one with predictions"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_outlives_its_suite_is_waited_for(tmp_path: Path) -> None:
    suite, records, work = (
        one_pretraining_and_transfer(tmp_path, 2000),
        tmp_path / "results" / "runs",
        tmp_path / "work",
    )
    first, log = begin(suite, records, work), work / "suite_mae_seed0" / "log.txt"
    while not list(log.parent.glob("checkpoints/*.pth")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.kill()
    first.wait()
    left = owner_of(log.parent / LOCK)
    assert left is not None, "the run ends with its suite"
    again = begin(suite, records, work)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert f"suite_mae_seed0: waiting for {left}, which is making it" in out
    assert "suite_mae_seed0: started" not in out
    assert "resum" not in log.read_text().lower()
    assert [path.name for path in records.rglob(".*")] == [], "what the killed suite has left is removed"


@pytest.mark.timeout(300)
def test_jobs_of_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    launch, asked = cluster("local", tmp_path / "submitit", 1), {"timeout_min": 5}
    for status in (0, 3):
        words = f"import os, sys; print(os.environ['OMP_NUM_THREADS']); sys.exit({status})"
        assert launch([sys.executable, "-c", words], tmp_path / f"{status}.txt", asked) == status
        assert (tmp_path / f"{status}.txt").read_text() == "1\n"
    stop = threading.Event()
    stop.set()
    stopped = cluster("local", tmp_path / "submitit", 1, stop)
    assert stopped([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "stopped.txt", asked) == 1
    log = tmp_path / "killed.txt"  # kills the job around it: no status, and the log says so
    assert launch([sys.executable, "-c", "import os; os.kill(os.getppid(), 9)"], log, asked) == 1
    assert "ended without a status" in log.read_text()


def test_a_preempted_job_is_submitted_again_as_it_was() -> None:
    pytest.importorskip("submitit")
    again = Resumable(2).checkpoint(["a"], "log")
    assert (again.function.threads, again.args) == (2, (["a"], "log"))


def test_clusters_that_cannot_be_used(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with pytest.raises(ConfigError, match="--cluster slurm cannot be used") as caught:
        create_executor("slurm", tmp_path, {})  # no srun here
    one_line(caught.value)
    with pytest.raises(ConfigError, match="correct 'cluster' of the suite"):
        create_executor("local", tmp_path, {"colour": "red"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--data", "cifar10"], "--data takes TYPE=ROOT"),
        (["--data", "cifar10=/nowhere"], "'/nowhere' does not exist"),
        (["--seeds", "9"], "no run with seeds"),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    path = write_suite(tmp_path, tasks=[])
    assert (
        main(["suite", "run", str(path), "--records", str(tmp_path / "r"), "--work-dir", str(tmp_path), *options]) == 2
    )
    assert words in one_line(capsys.readouterr().err)
