"""The code makes the numbers of the committed traces, and a trace that differs in one bit fails.

Never skipped: a change that moves a number of training, evaluation or data is made on purpose, or not at all.
"""

import copy
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from traces import adapter, numerics_file, programs, record

from mlomae.records import RANDOM, read_named_records


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the traces were recorded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_the_code_makes_the_numbers_of_the_trace(name: str) -> None:
    trace, found = record.read(name), record.make(name)
    said = record.complaint(name, trace, found)
    if said:
        pytest.fail(said, pytrace=False)
    if not record.is_exact(trace, found):
        here, there = found["environment"], trace["environment"]
        other = [f"{key} {here[key]}, not {there[key]}" for key in record.EXACT if here[key] != there[key]]
        warnings.warn(f"trace '{name}' was compared within a tolerance: {'; '.join(other)}", stacklevel=1)


def test_there_is_a_trace_for_every_program_and_for_every_part() -> None:
    assert {path.stem for path in record.FOLDER.glob("*.json")} == set(programs.PROGRAMS)
    assert {part for name in programs.PROGRAMS for part in record.read(name)["numerics"]} == set(record.NUMERICS)


def test_a_killed_run_leaves_its_checkpoint_and_no_record(tmp_path: Path) -> None:
    values = programs.merged(programs.PRETRAINING, programs.MAE)
    assert adapter.run_pretraining(values, tmp_path, stop_after=programs.KILLED_AFTER) is None
    assert [path.name for path in tmp_path.glob("checkpoints/*.pth")] == [f"iter_{programs.KILLED_AFTER}.pth"]
    assert not (tmp_path / "record.json").exists()


# --- what the comparison says; `there` and `here` are the same trace until one is changed ----------------------------

NAME = "pretrain_mlomae_linear"
LOSS = ("pretraining", "losses", "loss_upper", 6)
WEIGHTS = ("pretraining", "weights", "mask", "sha256")


@pytest.fixture
def there() -> record.Trace:
    return record.read(NAME)


def changed(trace: record.Trace, place: tuple[Any, ...], value: Any, **environment: Any) -> record.Trace:
    """A copy with another value at ``place``, as if made in another environment."""
    result = copy.deepcopy(trace)
    result["environment"] |= environment
    section = result["values"]
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value(section[place[-1]]) if callable(value) else value
    return result


def test_the_same_values_are_no_difference(there: record.Trace) -> None:
    assert record.complaint(NAME, there, json.loads(json.dumps(there))) is None


def test_a_loss_that_differs_in_its_last_digit_fails_and_is_named(there: record.Trace) -> None:
    here = changed(there, LOSS, lambda loss: math.nextafter(loss, 0.0))
    said = record.complaint(NAME, there, here)
    assert said is not None
    assert "1 values differ, first\n  pretraining.losses.loss_upper[6]: " in said
    assert "by rounding, as on another machine: record again if the order of operations was to change" in said
    said = record.complaint(NAME, there, changed(there, LOSS, lambda loss: loss * 1.001))
    assert said is not None
    assert "raise NUMERICS of pretraining and record again, or mend the change" in said


def test_a_weight_that_differs_in_a_bit_fails_and_is_named(there: record.Trace) -> None:
    said = record.complaint(NAME, there, changed(there, WEIGHTS, "0" * 64))
    assert said is not None
    assert "pretraining.weights.mask.sha256" in said


def test_the_earliest_iteration_is_named_first(there: record.Trace) -> None:
    here = changed(there, WEIGHTS, "0" * 64)
    for step in (9, 5, 7):
        here = changed(here, (*LOSS[:-1], step), 0.0)
    lines = record.differences(there, here)
    assert [line.partition(":")[0].rpartition(".")[2] for line in lines] == [
        *(f"loss_upper[{step}]" for step in (5, 7, 9)),
        "sha256",
    ]


@pytest.mark.parametrize("place", [LOSS[:-1], WEIGHTS])
def test_a_value_that_is_gone_fails(place: tuple[Any, ...], there: record.Trace) -> None:
    here = copy.deepcopy(there)
    section = here["values"]
    for key in place[:-1]:
        section = section[key]
    del section[place[-1]]
    assert record.complaint(NAME, there, here)
    assert record.complaint(NAME, here, there)


@pytest.mark.parametrize("environment", [{"threads": 2}, {"capability": "?"}, {"torch": "2.99.0"}, {"cpu": "?"}])
def test_elsewhere_small_differences_and_hashes_pass_and_large_ones_do_not(
    environment: dict[str, Any], there: record.Trace
) -> None:
    small = changed(there, LOSS, lambda loss: loss * (1 + 1e-6), **environment)
    assert record.complaint(NAME, there, changed(small, WEIGHTS, "0" * 64)) is None
    said = record.complaint(NAME, there, changed(there, LOSS, lambda loss: loss * 1.5, **environment))
    assert said is not None
    assert "within the tolerance for other machines" in said


def test_a_library_of_another_version_must_keep_the_bits(there: record.Trace) -> None:
    assert record.complaint(NAME, there, changed(there, LOSS, lambda loss: loss * (1 + 1e-6), timm="0.0"))


def test_a_raised_number_asks_for_a_new_trace(there: record.Trace) -> None:
    here = {**there, "numerics": {**there["numerics"], "pretraining": there["numerics"]["pretraining"] + 1}}
    said = record.complaint(NAME, there, here)
    assert said is not None
    assert f"python -m tests.traces.record {NAME} --write" in said


def test_other_values_are_written_only_under_a_raised_number(
    there: record.Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    record.write(NAME, there)
    here = changed(there, LOSS, 0.0)
    with pytest.raises(ValueError, match="raise NUMERICS first"):
        record.write(NAME, here)
    assert record.read(NAME) == there
    rounded = changed(changed(there, LOSS, lambda loss: loss * (1 + 1e-6)), WEIGHTS, "0" * 64)
    record.write(NAME, rounded)
    assert record.read(NAME) == rounded, "rounding alone"
    here["numerics"]["pretraining"] += 1
    record.write(NAME, here)
    assert record.read(NAME) == here


# --- results/numerics.json -----------------------------------------------------------------------------------------

RESULTS = numerics_file.RESULTS


def test_the_file_of_numbers_is_what_its_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").symlink_to(RESULTS / "runs")
    assert numerics_file.main(["--results", str(tmp_path)]) == 0
    assert (tmp_path / "numerics.json").read_text() == (RESULTS / "numerics.json").read_text()
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("wrote numerics.json: ")


def test_every_record_has_the_numbers_of_its_parts_once() -> None:
    """In the record, or, where an earlier version wrote it, in the file beside the folder."""
    beside = json.loads((RESULTS / "numerics.json").read_text())
    runs = read_named_records(RESULTS / "runs")  # what is kept beside the folder goes into a record without its own
    own = {name for name in runs if "digest" in json.loads((RESULTS / "runs" / name).read_text())}
    assert set(beside) == set(runs) - own
    for name, run in runs.items():
        numbers = run.get("numerics", {})  # a measurement of speed has none
        parts = {part for part in numbers if not part.startswith(("data.", "backbone."))}
        pretrained = run["task"] == "pretrain"
        evaluated = {"evaluation"} if pretrained and run["config"]["data"]["eval"] else set()
        assert parts == ({"pretraining"} | evaluated if pretrained else {run["task"]} - {"speed"}), name
        of_backbone = {part for part in numbers if part.startswith("backbone.")}
        known = run["method"] != RANDOM and not pretrained and run["task"] != "speed"
        assert ("backbone.pretraining" in of_backbone) == known, name
        assert all(0 <= number <= record.NUMERICS.get(part, 1) for part, number in numbers.items())


def test_a_record_of_a_commit_that_was_not_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="run the traces on its code first"):
        numerics_file.numbers_of({"git_commit": "0" * 40, "task": "detection"}, {})
