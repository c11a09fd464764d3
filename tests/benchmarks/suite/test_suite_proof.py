"""What a record proves: configuration, code and split; each changed alone must make it stale."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from run_samples import one_line
from suite_files import record_of, write_suite

from benchmarks.suite import proof
from benchmarks.suite.command import set_aside
from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import Job, Planner
from benchmarks.suite.proof import Proofs
from mlomae.cli import main
from mlomae.pretraining.run import build_data
from mlomae.records import predictions_of, write_record


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the folders that runs execute; it stands for the project's."""
    root = tmp_path / "checkout"
    for name in ("mlomae/cli.py", "mlomae/models/mae.py", "mlomae/backbones/run.py", "benchmarks/tables.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("first\n")
    git(root, "init", "-q")
    commit(root)
    monkeypatch.setattr(proof, "ROOT", root)
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(root: Path) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x", "--allow-empty")
    return git(root, "rev-parse", "HEAD")


def jobs_of(tmp_path: Path, **changes: Any) -> list[Job]:
    methods = [{"method": "MAE", "config": str(tmp_path / "tiny.py")}]
    recipe = str(tmp_path / "classification" / "knn_a.py")
    values = {"methods": methods, "seeds": [0], "tasks": [{"recipe": recipe}], **changes}
    return Planner(load_suite(write_suite(tmp_path, **values))).jobs()


def stale(tmp_path: Path, job: Job, any_code: bool = False) -> str | None:
    found = Proofs(tmp_path / "runs", any_code).of(job)
    assert found.record is not None
    assert found.done == (found.stale is None)
    return found.stale


def test_code_that_a_run_does_not_execute_may_change(tmp_path: Path, checkout: Path) -> None:
    pretrain, transfer = jobs_of(tmp_path)
    at = git(checkout, "rev-parse", "HEAD")
    for job in (pretrain, transfer):
        write_record(record_of(job, git_commit=at), tmp_path / "runs" / f"{job.label}.json")
    for name in ("README.md", "benchmarks/analysis/tables/build.py", "mlomae/cli.py", "mlomae/diagnostics/x.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("second\n")
    assert stale(tmp_path, pretrain) is stale(tmp_path, transfer) is None
    commit(checkout)
    assert stale(tmp_path, pretrain) is stale(tmp_path, transfer) is None
    (checkout / "mlomae/backbones/run.py").write_text("second\n")
    assert stale(tmp_path, pretrain) is None
    assert "'mlomae/backbones/run.py' changed" in str(stale(tmp_path, transfer))


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("name", ["mlomae/models/mae.py", "mlomae/masking/new.py"])
def test_code_that_a_run_executes_may_not(tmp_path: Path, checkout: Path, name: str, committed: bool) -> None:
    pretrain, _ = jobs_of(tmp_path)
    at = git(checkout, "rev-parse", "HEAD")
    write_record(record_of(pretrain, git_commit=at), tmp_path / "runs" / f"{pretrain.label}.json")
    assert stale(tmp_path, pretrain) is None
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("second\n")
    if committed:
        commit(checkout)
    assert stale(tmp_path, pretrain) == f"made from commit {at[:7]}, since when '{name}' changed"
    assert stale(tmp_path, pretrain, any_code=True) is None


def test_uncommitted_changes_and_unknown_commits_prove_nothing(tmp_path: Path, checkout: Path) -> None:
    pretrain, transfer = jobs_of(tmp_path)
    at = git(checkout, "rev-parse", "HEAD")
    write_record(record_of(pretrain, git_commit=at, git_dirty=True), tmp_path / "runs" / f"{pretrain.label}.json")
    write_record(record_of(transfer, git_commit="b" * 40), tmp_path / "runs" / f"{transfer.label}.json")
    assert stale(tmp_path, pretrain) == "made from uncommitted changes"
    assert "does not know" in str(stale(tmp_path, transfer))


def test_without_a_checkout_the_version_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_git", lambda *arguments: None)
    monkeypatch.setattr(proof, "versions", lambda: {"mlomae": "1.0"})
    pretrain, transfer = jobs_of(tmp_path)
    for job, version in ((pretrain, "1.0"), (transfer, "0.9")):
        record = record_of(job, git_commit=None, git_dirty=None, versions={"mlomae": version})
        write_record(record, tmp_path / "runs" / f"{job.label}.json")
    assert stale(tmp_path, pretrain) is None
    assert stale(tmp_path, transfer) == "made by version 0.9 of the code, here is 1.0"


def test_another_split_is_seen(tmp_path: Path) -> None:
    pretrain, _ = jobs_of(tmp_path)
    right = build_data(pretrain.config).split.hash
    path = tmp_path / "runs" / f"{pretrain.label}.json"
    write_record(record_of(pretrain, split_hash=right), path)
    assert stale(tmp_path, pretrain, any_code=True) is None
    path.unlink()
    write_record(record_of(pretrain, split_hash="0" * len(right)), path)
    assert stale(tmp_path, pretrain, any_code=True) == "made with another split of the data"


def test_a_split_of_data_that_are_not_here_cannot_be_compared(tmp_path: Path) -> None:
    changes = {"options": {"data.train": {"type": "cifar10", "root": str(tmp_path / "none")}, "data.eval": None}}
    pretrain, _ = jobs_of(tmp_path, **changes)
    write_record(record_of(pretrain, split_hash="0" * 16), tmp_path / "runs" / f"{pretrain.label}.json")
    assert stale(tmp_path, pretrain, any_code=True) is None


def test_stale_records_stop_a_run_before_it_begins_and_are_never_lost(
    tmp_path: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain, _ = jobs_of(tmp_path)
    path = tmp_path / "runs" / f"{pretrain.label}.json"
    record = record_of(pretrain, git_commit="b" * 40)
    write_record(record, path)
    content = path.read_bytes()
    arguments = ["suite", "run", str(tmp_path / "suite.py"), "--records", str(path.parent)]
    arguments += ["--work-dir", str(tmp_path / "work"), "--no-tables"]
    assert main(arguments) == 2
    assert "1 records prove nothing here" in one_line(capsys.readouterr().err)
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


def test_predictions_are_set_aside_with_their_record(tmp_path: Path) -> None:
    _, transfer = jobs_of(tmp_path)
    path = tmp_path / "runs" / "of_a_machine" / f"{transfer.label}.json"
    write_record(record_of(transfer, git_commit="b" * 40), path)
    predictions = predictions_of(f"of_a_machine/{path.name}", tmp_path / "runs")
    predictions.parent.mkdir(parents=True)
    predictions.write_bytes(b"tested")
    content = path.read_bytes()
    set_aside([transfer], Proofs(tmp_path / "runs"))
    kept = tmp_path / "superseded" / "of_a_machine" / f"{transfer.label}_{'b' * 12}.json"
    assert kept.read_bytes() == content
    assert kept.with_suffix(".npz").read_bytes() == b"tested"
    assert not path.exists()
    assert not predictions.exists(), "the tables refuse predictions without a record"
