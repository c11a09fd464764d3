"""Which runs a record proves done: of the same resolved configuration and seed, the same code, the same split.

- Configuration: the record's ``config_hash`` is the run's. Its name and folder do not matter, so that suites share
  records.
- Code: what the run executes (the package without its tools; for a transfer also its task's) is, file by file, as in
  the record's commit, and that record was not made from uncommitted changes. Outside a checkout: the same version.
- Split: the images that the levels of a pretraining are given are those of the record. It is looked at where the data
  are at hand; without them the run could not be repeated either.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT
from benchmarks.suite.jobs import PRETRAIN, Job
from mlomae.common.errors import ConfigError, MlomaeError
from mlomae.config.schema import PretrainConfig
from mlomae.pretraining.run import find_split
from mlomae.records import Record, read_named_records, read_record, versions

# of the package, what no number depends on
_TOOLS = (
    "mlomae/diagnostics",
    "mlomae/cli.py",
    "mlomae/doctor.py",
    "mlomae/backbones/export.py",
    "mlomae/data/tools",
)


@dataclass(frozen=True)
class Proof:
    """What the records say of a run. ``stale``: why its record proves nothing, None if it does or there is none."""

    record: Record | None = None
    stale: str | None = None

    @property
    def done(self) -> bool:
        return self.record is not None and self.stale is None


def sources_of(job: Job) -> list[str]:
    """The paths, from the root of the checkout, that hold what ``job`` executes; as git takes them."""
    own = ["mlomae", *(f":!{path}" for path in _TOOLS)]
    return own if job.task == PRETRAIN else [*own, "benchmarks/transfer", f"benchmarks/tasks/{job.task}"]


@dataclass
class Proofs:
    """The records of a folder, by what they prove. ``any_code``: a record of other code counts as well."""

    folder: Path
    any_code: bool = False
    _records: dict[tuple[str, int], Record] = field(default_factory=dict)
    _files: dict[tuple[str, int], Path] = field(default_factory=dict)
    _code: dict[tuple[str | None, str], str | None] = field(default_factory=dict)
    _splits: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, record in (read_named_records(self.folder) if self.folder.is_dir() else {}).items():
            self._keep(record, self.folder / name)

    def of(self, job: Job) -> Proof:
        """Raises ConfigError if the place of its record is taken by another configuration."""
        record = self._records.get((job.hash, job.seed))
        if record is None:
            path = self.folder / f"{job.label}.json"
            if path.is_file():
                raise ConfigError(
                    f"'{path.name}' records another configuration than the suite's; move it away, or rename the suite"
                )
            return Proof()
        stale = self._other_split(job, record) or (None if self.any_code else self._other_code(job, record))
        return Proof(record, stale)

    def add(self, job: Job) -> Record | None:
        """The record that a run has just written; None if it has not."""
        path = self.folder / f"{job.label}.json"
        if not path.is_file():
            return None
        record = read_record(path, path.name)
        self._keep(record, path)
        return record if (record["config_hash"], record["seed"]) == (job.hash, job.seed) else None

    def all(self) -> list[Record]:
        return list(self._records.values())

    def path_of(self, record: Record) -> Path:
        """The file of a record that `of` has given."""
        return self._files[record["config_hash"], record["seed"]]

    def _keep(self, record: Record, path: Path) -> None:
        key = record["config_hash"], record["seed"]
        self._records[key], self._files[key] = record, path

    def _other_code(self, job: Job, record: Record) -> str | None:
        key = (record["git_commit"], job.task)
        if key not in self._code:
            self._code[key] = _difference(record["git_commit"], sources_of(job), record)
        if self._code[key] is None and record["git_dirty"]:
            return "made from uncommitted changes"
        return self._code[key]

    def _other_split(self, job: Job, record: Record) -> str | None:
        if job.task != PRETRAIN or record["split_hash"] is None:
            return None
        found = self._split(job.config)
        return None if found in (None, record["split_hash"]) else "made with another split of the data"

    def _split(self, config: PretrainConfig) -> str | None:
        """The hash of the split that ``config`` would make; None where its data are not at hand."""
        data = config.data
        key = json.dumps([data.train, data.feedback, data.val_fraction, data.split_seed], sort_keys=True)
        if key not in self._splits:
            try:
                self._splits[key] = find_split(config).hash
            except MlomaeError:
                self._splits[key] = None
        return self._splits[key]


def _difference(commit: str | None, paths: list[str], record: dict[str, Any]) -> str | None:
    """How the code at ``paths`` differs from that of ``commit``, None if it does not."""
    here = _git("rev-parse", "HEAD")
    if here is None or commit is None:
        own, other = versions().get("mlomae"), record["versions"].get("mlomae")
        return None if here is None and own == other else f"made by version {other} of the code, here is {own}"
    if _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        return f"made from commit {commit[:7]}, which this checkout does not know"
    changed = _git("diff", "--name-only", commit, "--", *paths)
    new = _git("ls-files", "--others", "--exclude-standard", "--", *paths)
    names = [*(changed or "").split(), *(new or "").split()]
    return f"made from commit {commit[:7]}, since when {_named(names)} changed" if names else None


def _named(names: list[str]) -> str:
    return f"'{names[0]}'" + (f" and {len(names) - 1} more files" if len(names) > 1 else "")


def _git(*arguments: str) -> str | None:
    """What git says, None if it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
