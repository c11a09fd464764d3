"""Stand-ins for sbatch, srun, scontrol, scancel and sacct: a cluster whose nodes are all this machine.

``install(folder)`` writes them to ``folder``/bin. As programs they read `FAKE_SLURM`, the folder of their state: the
script of every job; of the one that runs, pids of its tasks, whether it is to be queued again, its state for sacct.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FIRST = 4242


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bin").mkdir()
    for name in PROGRAMS:
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def state() -> Path:
    return Path(os.environ["FAKE_SLURM"])


def sbatch(script: str) -> None:
    job = str(FIRST + len([*state().glob("script*")]))
    (state() / f"script{job}").write_text(text := Path(script).read_text())
    (state() / "state").write_text("RUNNING")
    nodes = re.findall(r"#SBATCH --nodes=(\d+)", text)[0]
    variables = {"SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": nodes, "SLURM_JOB_NODELIST": "localhost,other[1-9]"}
    command = [sys.executable, __file__, "controller"]
    with (state() / "controller.txt").open("w") as said:
        subprocess.Popen(command, env={**os.environ, **variables}, stdout=said, stderr=said, start_new_session=True)
    print(f"Submitted batch job {job}")


def controller() -> None:
    again = state() / "again"
    again.touch()
    while again.exists():
        again.unlink()
        subprocess.run(["bash", str(state() / f"script{os.environ['SLURM_JOB_ID']}")])
    (state() / "state").write_text("COMPLETED")


def srun(*words: str) -> None:
    """Options of srun, then ``PYTHON -u -m submitit...``."""
    first = words.index(sys.executable)
    out = words[words.index("--output") + 1].replace("%j", os.environ["SLURM_JOB_ID"])
    tasks = []
    for node in range(int(os.environ["SLURM_JOB_NUM_NODES"])):
        own = {"SLURM_PROCID": str(node), "SLURM_NODEID": str(node), "SLURM_LOCALID": "0"}
        own["SLURM_NTASKS"] = os.environ["SLURM_JOB_NUM_NODES"]
        with Path(out.replace("%t", str(node))).open("a") as file:
            tasks.append(subprocess.Popen(words[first:], env={**os.environ, **own}, stdout=file, stderr=file))
    (state() / "tasks").write_text(" ".join(str(task.pid) for task in tasks))
    for task in tasks:
        task.wait()


def signal_tasks(number: int = signal.SIGTERM) -> None:
    for pid in (state() / "tasks").read_text().split():
        os.kill(int(pid), number)


def scontrol(action: str, job: str) -> None:
    assert (action, job) == ("requeue", os.environ["SLURM_JOB_ID"])
    (state() / "again").touch()


def scancel(job: str) -> None:
    assert (state() / f"script{job}").exists()
    signal_tasks()


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for script in state().glob("script*"):
        print(f"{script.name.removeprefix('script')}|{(state() / 'state').read_text()}|localhost")


PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__: program for program in (sbatch, controller, srun, scontrol, scancel, sacct)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
