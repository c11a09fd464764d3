"""Two suites at the same time that have runs in common."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from suite_files import PRETRAINING, write_suite

from mlomae.common.ownership import LOCK, owner_of
from tests.stress.commands import Command, Ended
from tests.stress.harness import Case, Check

WHAT = "suites that share runs make each once, backbones once a work dir, and wait for a run that outlives its suite"
SAMPLE = 2


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    for both in (("a", "a"), ("a", "b")):
        for works in (("work", "work"), ("work", "other")):
            same = "the same one" if both[0] == both[1] else "one pretraining, two transfers"
            where = "one work dir" if works[0] == works[1] else "two work dirs"
            yield Case(f"suites side by side: {same}, {where}", _two_suites(both, works), 300)
    yield Case("suites side by side: the first is killed, its run lives on", _outlived, 300)


def _suite(folder: Path, recipe: str, iterations: int) -> Path:
    """A pretraining and its transfer with ``recipe``; what is in the files of several in one folder is the same."""
    tasks = [{"recipe": str(folder / "classification" / f"knn_{recipe}.py")}]
    methods = [{"method": "MAE", "config": str(folder / "tiny.py")}]
    path = write_suite(folder, methods=methods, seeds=[0], tasks=tasks).rename(folder / f"suite_{recipe}.py")
    (folder / "tiny.py").write_text(PRETRAINING.replace("outer_iterations=2", f"outer_iterations={iterations}"))
    return path


def _run_suite(path: Path, work: str) -> Command:
    folder = path.parent
    return Command("suite", "run", path, "--records", folder / "results" / "runs", "--work-dir", folder / work)


def _two_suites(both: tuple[str, str], works: tuple[str, str]) -> Check:
    def check(folder: Path) -> None:
        paths = [_suite(folder, recipe, 20) for recipe in both]
        suites = [_run_suite(path, work) for path, work in zip(paths, works, strict=True)]
        ends = [suite.wait(280).well() for suite in suites]
        again = sum(ended.out.count("suite_mae_seed0: on record, but its backbone is not in") for ended in ends)
        assert again == (both[0] != both[1] and works[0] != works[1]), "a backbone is trained again where it is not"
        _each_run_once(folder, ends, {"suite_mae_seed0", *(f"knn_{recipe}_mae_seed0" for recipe in both)}, again)

    return check


def _outlived(folder: Path) -> None:
    path = _suite(folder, "a", 1000)
    run = folder / "work" / "suite_mae_seed0"
    first = _run_suite(path, "work")
    deadline = time.monotonic() + 100
    while not list(run.glob("checkpoints/*.pth")):
        assert time.monotonic() < deadline, "the suite starts no run"
        time.sleep(0.02)
    first.send(signal.SIGKILL)
    first.wait().killed()
    assert owner_of(run / LOCK), "the run has ended with its suite"
    second = _run_suite(path, "work").wait(280).well()
    assert "suite_mae_seed0: waiting for process" in second.out, second.out
    assert "suite_mae_seed0: started" not in second.out, "it is made again"
    assert "resum" not in (run / "log.txt").read_text().lower(), "it is gone on with"
    _each_run_once(folder, [second], {"knn_a_mae_seed0"})


def _each_run_once(folder: Path, ends: list[Ended], labels: set[str], again: int = 0) -> None:
    """``again``: how often the pretraining is repeated for its backbone, beyond once."""
    text = "".join(ended.out for ended in ends)
    for label in labels:
        started, wanted = text.count(f"{label}: started"), 1 + again * (label == "suite_mae_seed0")
        assert started == wanted, f"{label} is started {started} times"
    records = {path.stem for path in (folder / "results" / "runs").glob("*.json")}
    assert records == labels | {"suite_mae_seed0"}, f"records: {sorted(records)}"
    left = sorted(path.name for path in (folder / "results").rglob(".*"))
    assert not left, f"left: {left}"
