"""The stress script notices planted faults of every kind of verdict, and each of its kinds has cases."""

import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from record_samples import make_record

from mlomae.common.checkpoint import FORMAT, checkpoint_path, save_atomically
from mlomae.records import write_record
from tests.stress import __main__ as script
from tests.stress import faults, harness
from tests.stress.commands import Command, Ended, refused_call
from tests.stress.harness import Case, Result, sample
from tests.stress.runs import Prepared, Run, same_results
from tests.stress.table import table

REFUSED = "error: 'x' is missing; add it\n"


def fails(folder: Path) -> None:
    raise AssertionError("not as promised")


def leaves_a_process(folder: Path) -> None:
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)


CHECKS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "passes": (lambda folder: (folder / "file").touch(), None),
    "fails": (fails, "AssertionError: not as promised"),
    "hangs": (lambda folder: time.sleep(60), "hangs: not at its end after 1 s"),
    "dies": (lambda folder: os.kill(os.getpid(), signal.SIGKILL), f"ended with status {signal.SIGKILL}"),
    "leaves a process": (leaves_a_process, "leaves processes behind"),
}


def test_every_end_of_a_case_but_a_good_one_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "GRACE", 0.5)
    cases = [Case(name, check, 1.0) for name, (check, _) in CHECKS.items()]
    found = {result.case.name: result.fault for result in harness.run(cases, tmp_path, 2)}
    for name, (_, fault) in CHECKS.items():
        assert (found[name] or "").startswith(fault or ""), found[name]
        assert (found[name] is None) == (fault is None)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["2", "3", "4", "5"], (
        "for a look at them"
    )


BAD_ENDS = {
    "status": Ended("", 0, "", REFUSED, 0),
    "signal": Ended("", -11, "", REFUSED, 0),
    "two lines": Ended("", 2, "", 2 * REFUSED, 0),
    "no line": Ended("", 2, "", "help\n", 0),
    "traceback": Ended("", 2, "", f"Traceback (most recent call last):\n{REFUSED}", 0),
    "something else": Ended("", 2, "", "error: 'y' is missing\n", 0),
}


@pytest.mark.parametrize("kind", BAD_ENDS)
def test_a_refusal_is_one_line_with_a_status_that_says_what(kind: str) -> None:
    with pytest.raises(AssertionError):
        BAD_ENDS[kind].refused("'x'")
    Ended("", 2, "", f"a note\n{REFUSED}", 0).refused("'x'")
    Ended("", 2, "", f"usage: mlomae\nmlomae data: {REFUSED}", 0).refused("'x'")
    with pytest.raises(AssertionError):
        Ended("", 0, "", "Traceback (most recent call last):\n", 0).well()
    with pytest.raises(AssertionError, match="not refused"):
        refused_call(lambda: 1)


def test_a_command_ends_as_in_a_shell() -> None:
    Command("data", "check", "nothing").wait().refused("nothing")
    with pytest.raises(AssertionError, match="traceback"):
        Command(call=lambda: 1 / 0).wait().refused()
    with pytest.raises(AssertionError, match="not at its end"):
        Command(call=lambda: time.sleep(60)).wait(0.2)


def test_results_that_differ_in_anything_but_times_are_found(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_record(make_record(), a / "record.json")
    write_record(make_record(cpu_s=99.0), b / "record.json")
    same_results(a, b)
    (b / ".record.json.1.tmp").touch()
    with pytest.raises(AssertionError, match="files differ"):
        same_results(a, b)
    (c := tmp_path / "c").mkdir()
    write_record(make_record(outer_iterations=11), c / "record.json")
    with pytest.raises(AssertionError, match=r"record\.json differs in"):
        same_results(a, c)


def test_a_process_dies_and_fails_at_the_write_that_is_named(tmp_path: Path) -> None:
    def work() -> None:
        for i in range(3):
            (tmp_path / f"{i}").mkdir()
            (tmp_path / f"{i}" / "file").write_text("x")

    Command(call=work, arm=faults.die_at(tmp_path, 4)).wait().killed()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "1", "file"], "the second file is not open yet"
    ended = Command(call=lambda: (tmp_path / "a").mkdir(), arm=faults.fail_at(tmp_path, 28, 1)).wait()
    assert "No space left on device" in ended.last
    assert not (tmp_path / "a").exists()
    Command(call=lambda: sum(iter(int, 1)), arm=faults.die_after(0.05)).wait().killed()


def test_a_sample_has_cases_of_every_row_and_follows_the_seed() -> None:
    cases = [Case(f"{row}: {i}", fails) for row, count in (("a", 50), ("b", 2), ("c", 9)) for i in range(count)]
    found = sample(cases, 8, random.Random(0))
    assert len(found) == 8
    assert {case.row for case in found} == {"a", "b", "c"}
    assert found == sample(cases, 8, random.Random(0)) != sample(cases, 8, random.Random(1))
    assert sample(cases, 99, random.Random(0)) == cases


def test_faults_are_listed_with_the_command_that_repeats_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    planted = ModuleType("tests.stress.kinds.planted")
    vars(planted).update(WHAT="a plant", SAMPLE=9)
    planted.cases = lambda shared, chance: iter([Case("row: good", CHECKS["passes"][0]), Case("row: bad", fails)])
    monkeypatch.setitem(sys.modules, planted.__name__, planted)
    monkeypatch.setattr(script, "KINDS", [*script.KINDS, "planted"])
    out = tmp_path / "stress.md"
    assert script.main(["--only", "planted", "--seed", "3", "--out", str(out), "--keep", str(tmp_path)]) == 1
    said = capfd.readouterr().out
    assert "FAULT planted: row: bad: AssertionError: not as promised" in said
    assert "again: python -m tests.stress --seed 3 --only planted --case 'row: bad'" in said
    earlier = table({"another": [Result(Case("it", fails), 1.0, None)]}, {"another": "kept"}, "before")
    assert re.search(r"\*\*planted\*\* \| a plant \| 1 of 2 \| \d+ \| .* seed 3, a sample \|", out.read_text())
    assert re.search(r"\| \| row \| 1 of 2 \| \d+ \|", out.read_text())
    out.write_text(earlier)
    again = ["--only", "planted", "--case", "good", "--out", str(out), "--keep", str(tmp_path)]
    assert script.main(again) == 0
    assert "**2 of 2**" in out.read_text()
    assert "| **another** | kept | 1 of 1 | 1 | before |" in out.read_text()


def finished(run: Run, shared: Path) -> Prepared:
    """In the place of an undisturbed run: files of the names that the kinds read."""
    folder = shared / run.name
    work = folder / "undisturbed" / "work"
    if not work.exists():
        for iteration in (2, 4):
            content = {"format": FORMAT, "modules": {"w": torch.zeros(100)}}
            save_atomically(content, checkpoint_path(work, iteration))
        for name in ("images.npz", "predictions.npz"):
            np.savez(work / name, a=np.zeros(100))
    return Prepared(run.name, folder, ["pretrain", str(folder / "tiny.py")], 1.0, ["os.mkdir work", *29 * ["open x"]])


@pytest.mark.parametrize("name", script.KINDS)
def test_each_kind_has_cases(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "prepared", finished)
    kind = script.kind_of(name)
    assert len(kind.WHAT) > 20
    if name == "inputs":  # whose cases come from runs of its helpers
        return
    names = [case.name for case in kind.cases(tmp_path, random.Random(0))]
    assert names == [case.name for case in kind.cases(tmp_path, random.Random(0))], "the seed decides"
    assert len(set(names)) == len(names) >= kind.SAMPLE
