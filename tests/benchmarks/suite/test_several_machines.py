"""Jobs of several processes: torchrun in every task of a submitit job, which is queued again after a signal."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_slurm
import pytest
import tiny
from on_two_ranks import in_two_forks
from run_samples import one_line
from suite_files import write_suite

from benchmarks.suite.file import ROOT, load_suite
from benchmarks.suite.jobs import Planner
from benchmarks.suite.launch import check_jobs, cluster, create_executor
from benchmarks.suite.resumable import CANCELLED, Resumable
from mlomae.cli import main
from mlomae.common.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint
from mlomae.common.errors import ConfigError
from mlomae.pretraining.run import run_pretraining

pytest.importorskip("submitit")

LAST = 30
RANK = """
import os, signal, sys, time
from pathlib import Path
rank, work = os.environ.get("RANK", "0"), Path(sys.argv[1])
print(*(os.environ.get(name, "alone") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")), flush=True)
if (work / "checkpoint").exists():
    sys.exit(0)
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
(work / f"ready{rank}").touch()
ends = time.monotonic() + 120
while not asked and time.monotonic() < ends:
    time.sleep(0.02)
time.sleep(0.5)
(work / "checkpoint").touch()
sys.exit(75)
"""  # waits for a signal the first time, without torch


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    (tmp_path / "rank.py").write_text(RANK)
    return [sys.executable, str(tmp_path / "rank.py"), str(tmp_path)]


def signal_tasks(folder: Path, number: int) -> None:
    """To the tasks of the only local job in ``folder``."""
    (submitted,) = folder.glob("*_submitted.pkl")
    controller = submitted.name.partition("_")[0]
    tasks = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    for pid in tasks:
        os.kill(int(pid), number)


def wait_for(path: Path, ended: Future[int], log: Path) -> None:
    while not path.exists():
        assert not ended.done(), log.read_text()
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the tasks in /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_to_a_job_ends_the_run_which_the_job_takes_up_again(
    name: str, program: list[str], tmp_path: Path
) -> None:
    launch, log = cluster("local", tmp_path / "submitit", 1), tmp_path / "log.txt"
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(launch, program, log, {"timeout_min": 5})
        wait_for(tmp_path / "ready0", ended, log)
        signal_tasks(tmp_path / "submitit", getattr(signal, name))
        assert ended.result() == 0
    assert log.read_text().splitlines() == ["alone alone alone"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="finds the tasks in /proc")
def test_a_job_that_the_suite_cancels_does_not_queue_itself_again(program: list[str], tmp_path: Path) -> None:
    launch, log = cluster("local", tmp_path / "submitit", 1), tmp_path / "log.txt"
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(launch, program, log, {"timeout_min": 5})
        wait_for(tmp_path / "ready0", ended, log)
        (submitted,) = (tmp_path / "submitit").glob("*_submitted.pkl")
        (tmp_path / "submitit" / CANCELLED.format(submitted.name.partition("_")[0])).touch()
        signal_tasks(tmp_path / "submitit", signal.SIGTERM)
        assert ended.result() == 75
    assert log.read_text().splitlines() == ["alone alone alone"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_that_cannot_queue_itself_again_says_so_and_has_no_result(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node's task leaves it to the first."""
    task = SimpleNamespace(USR_SIG="USR2", global_rank=rank, num_tasks=1, job_id="1")
    task.paths = SimpleNamespace(folder=tmp_path)
    monkeypatch.setattr("submitit.JobEnvironment", lambda: task)
    asked = []

    def refuse(*_: Any) -> None:
        asked.append(True)
        raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "1"])

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGUSR2, refuse)
    try:
        with pytest.raises(SystemExit) as ended:
            Resumable(1)([sys.executable, "-c", "raise SystemExit(75)"], str(tmp_path / "log.txt"))
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert ended.value.code == 0
    if rank:
        assert (asked, (tmp_path / "log_node1.txt").read_text()) == ([], "")
    else:
        assert "note: the job has not queued itself again: Command '['scontrol'" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("processes", "nodes", "options"),
    [
        (1, 1, None),
        (8, 1, "--standalone --nproc-per-node 8"),
        (1, 2, "--nnodes 2 --node-rank 1 --master-addr gpu07 --master-port 20321 --rdzv-id 770321 --nproc-per-node 1"),
        (8, 2, "--nnodes 2 --node-rank 1 --master-addr gpu07 --master-port 20321 --rdzv-id 770321 --nproc-per-node 8"),
    ],
)
def test_processes_meet_where_the_variables_of_slurm_say(
    processes: int, nodes: int, options: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import submitit

    for key, value in {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "770321",
        "SLURM_JOB_NODELIST": "gpu[07,12-13]",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NTASKS": str(nodes),
        "SLURM_NODEID": str(nodes - 1),
        "SLURM_PROCID": str(nodes - 1),
    }.items():
        monkeypatch.setenv(key, value)
    command = ["python", "-m", "mlomae.cli", "pretrain"]
    across = Resumable(1, processes).across(command, submitit.JobEnvironment())
    if options is None:
        assert across == command
    else:
        start = ["python", "-m", "benchmarks.suite.ranks"]
        assert across == [*start, *options.split(), "-m", "mlomae.cli", "pretrain"]


@pytest.mark.parametrize(("ends", "status"), [("sys.exit(0)", 0), ("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_torchrun_ends_with_the_status_of_its_ranks(ends: str, status: int, tmp_path: Path) -> None:
    """And its output with their last line, and one of its own."""
    program = f"import os, sys\nprint('error: a line of a rank', file=sys.stderr, flush=True)\n{ends}\n"
    (tmp_path / "rank.py").write_text(program)
    command = [sys.executable, "-m", "benchmarks.suite.ranks", "--standalone", "--nproc-per-node", "1"]
    done = subprocess.run([*command, str(tmp_path / "rank.py")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    first, *others = done.stderr.splitlines()
    assert first == "error: a line of a rank"
    assert len(others) == (status > 0)


@pytest.mark.slow
def test_the_commands_of_slurm(program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for them says which are called, not what a real one does."""
    fake_slurm.install(tmp_path, monkeypatch)
    stop = threading.Event()
    launch, log = cluster("slurm", tmp_path / "submitit", 1, stop), tmp_path / "log.txt"
    asked = {"nodes": 2, "gpus_per_node": 2, "cpus_per_task": 4, "timeout_min": 60, "slurm_partition": "long"}
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(launch, program, log, asked)
        for rank in range(4):
            wait_for(tmp_path / f"ready{rank}", ended, log)
        fake_slurm.signal_tasks(signal.SIGUSR2)
        assert ended.result() == 0
        script = (tmp_path / f"script{fake_slurm.FIRST}").read_text()
        for line in ("nodes=2", "gpus-per-node=2", "ntasks-per-node=1", "time=60", "partition=long"):
            assert f"#SBATCH --{line}\n" in script
        assert "--cpus-per-task=4" in next(line for line in script.splitlines() if line.startswith("srun "))
        logs = [path.read_text().splitlines() for path in (log, log.with_name("log_node1.txt"))]
        for node, lines in enumerate(logs):
            ranks = [line for line in lines if line.endswith("4 localhost")]
            assert sorted(ranks) == sorted([f"{2 * node} 4 localhost", f"{2 * node + 1} 4 localhost"] * 2), lines

        for path in (tmp_path / "checkpoint", *tmp_path.glob("ready*")):
            path.unlink()
        ended = pool.submit(launch, program, log, asked)
        wait_for(tmp_path / "ready0", ended, log)
        stop.set()
        assert ended.result() == 1
        while (tmp_path / "state").read_text() != "COMPLETED":
            time.sleep(0.02)
    assert (tmp_path / "checkpoint").exists()
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the tasks in /proc")
def test_a_suites_job_of_two_nodes_that_is_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Tasks stand for nodes, and gloo for NCCL. The other run is not interrupted, and no job."""
    options = {"train.outer_iterations": LAST, "train.log_interval": 5, "train.checkpoint_interval": 5}
    options |= {"mask.type": "learned", "mask.hidden": 8, "feedback.type": "nca"}
    methods = [{"config": str(tmp_path / "tiny.py"), "options": options, "cluster": {"nodes": 2}}]
    suite = write_suite(tmp_path, methods=methods, seeds=[0], tasks=[], cluster={"timeout_min": 5})
    work, straight = tmp_path / "work", tmp_path / "straight"
    (job,) = Planner(load_suite(suite), work, tmp_path / "records").jobs()
    in_two_forks(lambda rank: run_pretraining(job.config, straight) and None, seconds=600)

    def stop() -> None:
        while not list_checkpoints(job.folder):
            time.sleep(0.02)
        signal_tasks(work / "submitit", signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    arguments = [str(suite), "--records", str(tmp_path / "records"), "--work-dir", str(work), "--cluster", "local"]
    status = main(["suite", "run", *arguments, "--no-tables"])
    log = (job.folder / "log.txt").read_text()
    assert status == 0, log
    assert "stopped by SIGTERM after" in log
    assert "resumed from" in log
    states = [load_checkpoint(checkpoint_path(folder, LAST)) for folder in (job.folder, straight)]
    assert states[0]["processes"] == 2
    assert tiny.state_differences(*states) == []


@pytest.mark.parametrize(
    ("asked", "options", "words"),
    [
        ({"nodes": 3}, {}, "a job of 3 processes: data.batch_size 8 is not a multiple of 3 processes"),
        ({"gpus_per_node": 4}, {"data.feedback_batch_size": 6}, "data.feedback_batch_size 6 is not a multiple of 4"),
        ({"nodes": 2, "gpus_per_node": 2}, {"train.accumulate": 4}, "train.accumulate=4 does not divide the 2 images"),
        (
            {"nodes": 2},
            {"train.accumulate": 2, "auxiliary": {"type": "uniformity", "weight": 1.0}},
            "auxiliary compares the images of a chunk, and chunks of 2 processes",
        ),
        ({"nodes": 2}, {"train.accumulate": 2, "mask": {"type": "cl_mae", "hidden": 8}}, "mask.type='cl_mae' compares"),
        ({"tasks_per_node": 2}, {}, "leave 'tasks_per_node' of 'cluster' out"),
        ({"nodes": "two"}, {}, "cannot be used"),
        ({"nodes": 0}, {}, "cluster: nodes must be at least 1"),
        ({"colour": "red"}, {}, "correct 'cluster' of the suite"),
    ],
)
def test_what_a_job_cannot_do_is_said_before_it_is_submitted(
    asked: dict[str, Any],
    options: dict[str, Any],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    methods = [{"config": str(tmp_path / "tiny.py"), "options": options, "cluster": asked}]
    suite = write_suite(tmp_path, methods=methods, seeds=[0], tasks=[])
    arguments = [str(suite), "--records", str(tmp_path / "records"), "--work-dir", str(tmp_path / "work")]
    assert main(["suite", "run", *arguments, "--cluster", "local"]) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not list((tmp_path / "work").rglob("*.pkl"))


def test_a_transfer_that_trains_shares_its_batches_and_a_vote_need_not(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, seeds=[0], cluster={"gpus_per_node": 3})
    votes = [job for job in Planner(load_suite(suite), tmp_path).jobs() if job.task == "classification"]
    check_jobs("local", tmp_path, votes)
    config = SimpleNamespace(protocol="linear", data=SimpleNamespace(batch_size=8))
    trains = SimpleNamespace(task="classification", config=config, cluster={"gpus_per_node": 3}, label="a")
    with pytest.raises(ConfigError, match=r"a as a job of 3 processes: data\.batch_size 8 is not a multiple"):
        check_jobs("local", tmp_path, [trains])  # type: ignore[list-item]


def test_a_method_and_a_task_change_what_the_suite_asks_for(tmp_path: Path) -> None:
    config, recipe = str(tmp_path / "tiny.py"), str(tmp_path / "classification" / "knn_a.py")
    methods = [{"method": "MAE", "config": config, "cluster": {"nodes": 2}}, {"method": "B", "config": config}]
    tasks = [{"recipe": recipe, "cluster": {"gpus_per_node": 1}}]
    asked = {"gpus_per_node": 8, "timeout_min": 60}
    suite = write_suite(tmp_path, methods=methods, seeds=[0], tasks=tasks, cluster=asked, same_time="B")
    planner = Planner(load_suite(suite), tmp_path / "work")
    jobs = planner.jobs()
    jobs += planner.same_time(5, jobs)
    transfer = {**asked, "gpus_per_node": 1}
    assert [job.cluster for job in jobs] == [
        {**asked, "nodes": 2},
        asked,
        *[transfer] * 2,
        {**asked, "nodes": 2},
        transfer,
    ]


def test_how_often_a_job_may_run_out_of_time_is_the_suites_to_say(tmp_path: Path) -> None:
    executor = create_executor("local", tmp_path, {"timeout_min": 5, "local_max_num_timeout": 50})
    assert executor._executor.max_num_timeout == 50
