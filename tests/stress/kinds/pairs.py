"""Two processes in one place at the same time: two runs, two exports, two writers of a record.

A full run has `FULL` of the cases, as evenly over the rows as they allow, chosen by the seed.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from record_samples import make_record

from mlomae.common.checkpoint import load_checkpoint
from mlomae.common.errors import exit_status
from mlomae.common.ownership import LOCK
from mlomae.models.weights import read_weights
from mlomae.records import read_record, write_record
from tests.stress.commands import Command, Ended
from tests.stress.faults import die_after
from tests.stress.harness import Case, Check
from tests.stress.runs import CLASSIFICATION, PRETRAINING, SEGMENTATION, Prepared, differences, newest

WHAT = "of two that want one place one has it, and the other is told so by name or waits; nothing is of both"
SAMPLE = 32
FULL = 120
TIMES = 20
OTHERS = r"is in use by (process \d+ on|another process)|already holds a run"


def cases(shared: Path, chance: random.Random) -> Iterator[Case]:
    pretraining, classification, segmentation = (
        run.prepared(shared) for run in (PRETRAINING, CLASSIFICATION, SEGMENTATION)
    )
    for i in range(TIMES):
        wait = 0.0 if i % 2 else round(chance.uniform(0, 0.3), 3)
        for name, a, b in (
            ("two pretrainings", pretraining, pretraining),
            ("two transfers", classification, classification),
            ("a pretraining and a transfer", pretraining, classification),
            ("transfers to two tasks", segmentation, classification),
        ):
            yield Case(f"{name}, one folder: {i}, the second after {wait} s", _two_starts(a, b, wait))
        killed = round(chance.uniform(0.2, 0.8), 2)
        for prepared in (pretraining, classification):
            name = f"two resumes of a {prepared.name}: {i}, the second after {wait} s"
            yield Case(name, _two_resumes(prepared, wait, killed * prepared.cpu))
        yield Case(f"two exports to one file: {i}, the second after {wait} s", _two_exports(pretraining, wait))
        yield Case(f"two writers of one record: {i}", _two_records(25))


def _two_starts(a: Prepared, b: Prepared, wait: float) -> Check:
    """Seeds 0 and 1: one is refused, and what is left is the other's as if it had been alone."""

    def check(folder: Path) -> None:
        work = folder / "work"

        def start(prepared: Prepared, seed: int) -> Command:
            return Command(*prepared.argv, "--work-dir", work, "--cfg-options", f"seed={seed}")

        ends = _at_once(start(a, 0), lambda: start(b, 1), wait)
        _one_refused(ends)
        winner = next(i for i, ended in enumerate(ends) if ended.status == 0)
        record = json.loads((work / "record.json").read_text())
        task = "pretrain" if (a, b)[winner].argv[0] == "pretrain" else (a, b)[winner].argv[1]
        assert (record["seed"], record["task"]) == (winner, task), "the record is another run's"
        state = load_checkpoint(newest(folder), f"mlomae-{'pretrain' if task == 'pretrain' else 'transfer'}/1")
        assert state["config"]["seed"] == winner, "the weights are another run's"
        _no_locks(work)

    return check


def _two_resumes(prepared: Prepared, wait: float, moment: float) -> Check:
    def check(folder: Path) -> None:
        first = prepared.start(folder, die_after(moment), resume=False).wait()
        if first.status:  # else it was done before it was to die
            first.killed()
        resume = lambda: Command(*prepared.argv, "--work-dir", folder / "work", "--resume")  # noqa: E731
        ends = _at_once(resume(), resume, wait)
        if any(ended.status for ended in ends):  # else the second has waited for what was left, less than a second
            _one_refused(ends)
        _no_locks(folder / "work")
        expected, found = newest(prepared.undisturbed), newest(folder)
        files = [read_weights(path) for path in (expected, found)]
        states = [{"encoder": file.encoder, "decoder": file.decoder} for file in files]
        assert not differences(*states), "other weights than those of an undisturbed run"

    return check


def _two_exports(prepared: Prepared, wait: float) -> Check:
    """Of two checkpoints to one file: it is one's, with the digests of its images, and no temporary file is left."""

    def check(folder: Path) -> None:
        checkpoints = sorted((prepared.undisturbed / "work" / "checkpoints").iterdir())
        out = folder / "out.safetensors"
        ends = _at_once(Command("export", checkpoints[0], out), lambda: Command("export", checkpoints[1], out), wait)
        assert any(ended.status == 0 for ended in ends), ends[0].last
        for ended in ends:
            if ended.status:
                ended.refused("is in use by")
        file = read_weights(out)
        source = next(path for path in checkpoints if path.stem == f"iter_{file.about['iteration']}")
        assert not differences(file.encoder, read_weights(source).encoder), "weights of one, metadata of the other"
        left = sorted(path.name for path in folder.iterdir())
        assert left == ["out.images.npz", "out.safetensors"], f"left: {left}"

    return check


def _two_records(races: int) -> Check:
    def check(folder: Path) -> None:
        for race in range(races):
            path, begin = folder / f"{race}.json", time.monotonic() + 0.05

            def write(seconds: int, path: Path = path, begin: float = begin) -> int:
                record = make_record(cpu_s=seconds)
                while time.monotonic() < begin:
                    pass
                write_record(record, path)
                return 0

            writers = [Command(call=lambda s=s: exit_status(lambda _: write(s))(None)) for s in (1, 2)]
            ends = [writer.wait() for writer in writers]
            assert sorted(ended.status for ended in ends) == [0, 2], f"race {race}: {[e.status for e in ends]}"
            winner = 1 + next(i for i, ended in enumerate(ends) if ended.status == 0)
            ends[2 - winner].refused("exists and differs")
            assert read_record(path, path.name)["cpu_s"] == winner, "the loser's record is there"
        assert len(list(folder.iterdir())) == races, "temporary files are left"

    return check


def _at_once(first: Command, second: Callable[[], Command], wait: float) -> list[Ended]:
    time.sleep(wait)
    other = second()
    return [first.wait(), other.wait()]


def _one_refused(ends: list[Ended]) -> None:
    assert sorted(ended.status == 0 for ended in ends) == [False, True], [(e.status, e.last) for e in ends]
    next(ended for ended in ends if ended.status).refused(OTHERS)


def _no_locks(work: Path) -> None:
    left = [path.name for path in work.iterdir() if path.name.startswith((LOCK, "."))]
    assert not left, f"left: {left}"
