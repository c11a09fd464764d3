"""Which records count: configuration, NUMERICS and split; each changed alone must make a run stale."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_samples import one_line
from suite_files import planner_of, record_of, write_suite

from benchmarks.suite.command import set_aside
from benchmarks.suite.completed import CompletedRuns
from benchmarks.suite.file import ROOT, load_suite
from benchmarks.suite.jobs import Job, Planner
from benchmarks.suite.status import describe, state_of
from benchmarks.tasks import get_task
from mlomae.cli import main
from mlomae.common import numerics
from mlomae.common.errors import DataError
from mlomae.config.plugins import plugin_digest
from mlomae.data.content import describe_contents
from mlomae.pretraining.run import build_data, open_sources
from mlomae.records import NUMERICS_FILE, RANDOM, predictions_of, seal_records, sealed, write_record


def jobs_of(tmp_path: Path, **changes: Any) -> list[Job]:
    methods = [{"method": "MAE", "config": str(tmp_path / "tiny.py")}]
    recipe = str(tmp_path / "classification" / "knn_a.py")
    values = {"methods": methods, "seeds": [0], "tasks": [{"recipe": recipe}], **changes}
    return planner_of(write_suite(tmp_path, **values), tmp_path).jobs()


def write(job: Job, **changes: Any) -> Path:
    write_record(record_of(job, **changes), job.record)
    return job.record


def stale(job: Job, any_numerics: bool = False) -> str | None:
    record, why = CompletedRuns(job.record.parent, any_numerics).of(job)
    assert record is not None
    return why


@pytest.mark.parametrize(
    ("part", "again"),
    [
        ("pretraining", {"pretrain MAE", "classification MAE"}),
        ("evaluation", {"pretrain MAE"}),
        ("classification", {"classification MAE", f"classification {RANDOM}"}),
        ("data.textures", {"pretrain MAE", "classification MAE", f"classification {RANDOM}"}),
        ("segmentation", set()),
        ("data.cifar10", set()),
    ],
)
def test_a_raised_number_makes_the_runs_of_its_part_stale_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, again: set[str]
) -> None:
    for job in jobs_of(tmp_path, floor=True):
        write(job)
        assert stale(job) is None
    before = numerics.number_of(part)
    monkeypatch.setitem(numerics._NUMBERS, part, before + 1)
    jobs = jobs_of(tmp_path, floor=True)
    found = {f"{job.task} {job.method}": stale(job) for job in jobs}
    assert {run for run, why in found.items() if why is not None} == again
    for run, why in found.items():
        assert why is None or f"{part} (now {before + 1})" in why, run
        assert why is None or f"made with NUMERICS {before} of " in why, run
    assert all(stale(job, any_numerics=True) is None for job in jobs)
    shown = describe(planner_of(tmp_path / "suite.py", tmp_path), CompletedRuns(tmp_path / "runs"))
    assert shown.count(f"{part} (now {before + 1})") >= len(again), "the status says which part is older"


def test_a_record_without_numbers_does_not_count_unless_the_file_beside_it_has_them(tmp_path: Path) -> None:
    pretrain, _ = jobs_of(tmp_path)
    record = sealed(record_of(pretrain), "a")  # as version 0.1 wrote it
    del record["numerics"], record["digest"]
    pretrain.record.parent.mkdir(exist_ok=True)
    pretrain.record.write_text(json.dumps(record))
    with pytest.raises(DataError, match="mlomae records seal"):
        stale(pretrain)
    seal_records(pretrain.record.parent)
    now = numerics.number_of("pretraining")
    assert f"unknown NUMERICS of pretraining (now {now})" in str(stale(pretrain))
    kept = json.loads((tmp_path / NUMERICS_FILE).read_text())
    for number, why in ((0, f"made with NUMERICS 0 of pretraining (now {now})"), (now, None)):
        kept[pretrain.record.name]["numerics"] = {**pretrain.numerics, "pretraining": number}
        (tmp_path / NUMERICS_FILE).write_text(json.dumps(kept))
        assert stale(pretrain) == why


def test_a_transfer_of_a_checkpoint_without_numbers_counts(tmp_path: Path) -> None:
    """Of version 0.1, say, while the record of its pretraining counts."""
    _, transfer = jobs_of(tmp_path)
    own = {part: number for part, number in transfer.numerics.items() if not part.startswith(numerics.BACKBONE)}
    assert len(own) < len(transfer.numerics)
    write(transfer, numerics=own)
    assert stale(transfer) is None


def test_another_version_of_a_plugin_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_masks.py").write_text("x = 1\n")
    pretrain, _ = jobs_of(tmp_path)
    write(pretrain, plugins=plugin_digest(["my_masks"]))
    assert stale(pretrain) is None
    (tmp_path / "my_masks.py").write_text("x = 2\n")
    assert stale(pretrain, any_numerics=True) == "made with another version of my_masks"


def test_another_split_is_seen(tmp_path: Path) -> None:
    pretrain, transfer = jobs_of(tmp_path)
    right = build_data(pretrain.config).split.hash
    write(transfer)
    write(pretrain, split_hash=right)
    assert stale(pretrain, any_numerics=True) is stale(transfer, any_numerics=True) is None
    pretrain.record.unlink()
    write(pretrain, split_hash="0" * len(right))
    why = "made with other data: the images of data.train, or their split, are others"
    assert stale(pretrain, any_numerics=True) == why
    assert stale(transfer, any_numerics=True) == f"its backbone was {why}"


def test_other_data_of_the_same_configuration_are_seen(tmp_path: Path) -> None:
    pretrain, transfer = jobs_of(tmp_path)
    made = describe_contents(open_sources(pretrain.config))
    steps = get_task(transfer.task).create_steps(transfer.config)
    seen = describe_contents(dict(zip(("train", "test"), steps.open_data(), strict=True)))
    other = {**made["train"], "content": "0" * 32, "images": 7}
    for data, known, why in (
        (made, seen, (None, None)),
        ({**made, "train": other}, seen, ("made with other data: data.train", "its backbone was made with other data")),
        (made, {**seen, "test": {**seen["test"], "content": "0" * 32}}, (None, "made with other data: data.test has")),
    ):
        write(pretrain, data=data)
        write(transfer, data=known)
        for job, words in zip((pretrain, transfer), why, strict=True):
            found = stale(job, any_numerics=True)
            assert found is None if words is None else found is not None and words in found, (job.task, found)
        for job in (pretrain, transfer):
            job.record.rename(job.record.with_suffix(".old"))
    write(transfer, data=seen, pretrained={"data": {**made, "train": other}})
    write(pretrain, data=made)
    assert "its backbone was made with other data" in str(stale(transfer))


def test_suites_on_other_data_share_a_folder_of_records(tmp_path: Path) -> None:
    pretrain, _ = jobs_of(tmp_path)
    made = describe_contents(open_sources(pretrain.config))
    other = {"train": {**made["train"], "content": "0" * 32, "images": 7}}
    write_record(record_of(pretrain, data=other, name="of_another_suite"), pretrain.record.with_name("another.json"))
    completed = CompletedRuns(pretrain.record.parent)
    assert completed.of(pretrain) == (None, None), "that one is not ours, and not stale"
    write(pretrain, data=made)
    assert CompletedRuns(pretrain.record.parent).path_and_record(pretrain)[0] == pretrain.record


def test_a_split_of_data_that_are_not_here_cannot_be_compared(tmp_path: Path) -> None:
    changes = {"options": {"data.train": {"type": "cifar10", "root": str(tmp_path / "none")}, "data.eval": None}}
    pretrain, _ = jobs_of(tmp_path, **changes)
    write(pretrain, split_hash="0" * 16)
    assert stale(pretrain) is None


def test_stale_records_stop_a_run_before_it_begins_and_are_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain, _ = jobs_of(tmp_path)
    path = write(pretrain, git_commit="b" * 40)
    monkeypatch.setitem(numerics._NUMBERS, "pretraining", numerics.number_of("pretraining") + 1)
    content = path.read_bytes()
    arguments = ["suite", "run", str(tmp_path / "suite.py"), "--records", str(path.parent)]
    arguments += ["--work-dir", str(tmp_path / "work"), "--no-tables"]
    assert main(arguments) == 2
    assert "stale records: 1," in one_line(capsys.readouterr().err)
    assert not (tmp_path / "work").exists()
    (tmp_path / "tiny.py").write_text((tmp_path / "tiny.py").read_text() + "colour = 1\n")  # so that nothing can run
    assert main([*arguments, "--redo"]) == 2
    assert path.read_bytes() == content, "a suite that cannot be read moves nothing"
    jobs_of(tmp_path)
    predictions = predictions_of(path.name, path.parent)
    predictions.parent.mkdir()
    predictions.write_bytes(b"tested")
    kept = tmp_path / "superseded" / f"{pretrain.label}_{'b' * 12}.json"
    kept.parent.mkdir()
    kept.write_text("kept")
    assert main([*arguments, "--redo"]) == 2
    assert "it would be replaced" in one_line(capsys.readouterr().err.splitlines()[-1])
    assert path.read_bytes() == content
    assert predictions.is_file()
    assert kept.read_text() == "kept"


def test_predictions_and_the_folder_of_the_run_are_set_aside_with_a_record(tmp_path: Path) -> None:
    _, transfer = jobs_of(tmp_path)
    path = tmp_path / "runs" / "of_a_machine" / f"{transfer.label}.json"
    write_record(record_of(transfer, git_commit="b" * 40), path)
    predictions = predictions_of(f"of_a_machine/{path.name}", tmp_path / "runs")
    predictions.parent.mkdir(parents=True)
    predictions.write_bytes(b"tested")
    (transfer.folder / "checkpoints").mkdir(parents=True)
    content = path.read_bytes()
    set_aside([transfer], CompletedRuns(tmp_path / "runs"), tmp_path / "work")
    kept = tmp_path / "superseded" / "of_a_machine" / f"{transfer.label}_{'b' * 12}.json"
    assert kept.read_bytes() == content
    assert kept.with_suffix(".npz").read_bytes() == b"tested"
    assert not path.exists()
    assert not predictions.exists(), "the tables refuse predictions without a record"
    assert not transfer.folder.exists(), "its checkpoints would be resumed"
    assert (tmp_path / "work" / "superseded" / f"{transfer.label}_{'b' * 12}" / "checkpoints").is_dir()


@pytest.mark.parametrize("name", ["cifar10", "evidence_cifar10", "mask_ratio", "tiny-imagenet"])
def test_the_shipped_records_count(name: str, tmp_path: Path) -> None:
    records = ROOT / "results" / "runs"
    planner = Planner(load_suite(ROOT / "configs" / "suites" / f"{name}.py"), tmp_path, records)
    completed = CompletedRuns(records)
    assert {state_of(job, completed)[0] for job in planner.jobs()} == {"done"}
