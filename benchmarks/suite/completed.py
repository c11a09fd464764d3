"""Which runs of a suite are completed: those with a record of the same configuration, seed, NUMERICS and data.

- Configuration and seed: the record has the run's ``config_hash`` and ``seed``. Names and folders do not matter, so
  suites share records.
- NUMERICS: the record was made with the current numbers of all parts that the run depends on
  (`mlomae.common.numerics`), and with the current source of its plug-ins (`mlomae.config.plugins`).
- Data: images, labels and split have the content that the record describes. This is checked only if the data are
  present; without them the run could not be repeated anyway. Records of version 0.1 know a pretraining's split alone.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.suite.jobs import PRETRAIN, Job
from benchmarks.tasks import get_task
from mlomae.common.errors import ConfigError, MlomaeError
from mlomae.common.numerics import BACKBONE, describe_difference
from mlomae.config.plugins import changed_plugins
from mlomae.data.content import changes, describe_contents
from mlomae.pretraining.run import find_split, open_sources
from mlomae.records import RANDOM, Record, read_named_records, read_record


@dataclass
class CompletedRuns:
    """The records of ``folder``; None for a demo, whose records lie in the folders of its runs.

    ``any_numerics``: a record of other NUMERICS counts as well.
    """

    folder: Path | None
    any_numerics: bool = False
    _names: set[str] = field(default_factory=set)
    _found: dict[tuple[str, int], dict[Path, Record]] = field(default_factory=dict)
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is not None and self.folder.is_dir():
            for name, record in read_named_records(self.folder).items():
                self._names.add(name)
                self._add(self.folder / name, record)

    def look_again(self, places: Iterable[Path] = ()) -> bool:
        """Read the records that have come since, of other processes too; returns whether there are any.

        Those at ``places`` are left to `add`. One that cannot be read is not taken; the tables name it.
        """
        if self.folder is None:
            return False
        new = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.json")} - self._names
        for name in sorted(new - {path.name for path in places}):
            with suppress(MlomaeError, OSError):
                record = read_record(self.folder / name, name)
                self._add(self.folder / name, record)
        self._names |= new
        return bool(new)

    def of(self, job: Job) -> tuple[Record | None, str | None]:
        """(the record of a run or None, the reason why it does not count or None).

        Raises ConfigError if a record of another configuration is where the run's record belongs.
        """
        record = self.path_and_record(job)[1]
        return record, None if record is None else self._stale(job, record)

    def path_and_record(self, job: Job) -> tuple[Path, Record | None]:
        """The path of a run's record, and the record, whether it counts or not. Errors as `of`."""
        if found := self._found_of(job):
            return found
        record = self.add(job)
        if record is None and job.record.is_file():
            if self.look_again() and (found := self._found_of(job)):
                return found
            remedy = "rename the suite" if self.folder else "choose another --work-dir"
            raise ConfigError(
                f"'{job.record}' records another configuration than the suite's; move it away, or {remedy}"
            )
        return job.record, record

    def add(self, job: Job) -> Record | None:
        """The record that a run has just written; None if it has written none, or one of another configuration."""
        if not job.record.is_file():
            return None
        record = read_record(job.record, str(job.record))
        self._add(job.record, record)
        # the folder of embedded data is named after its content, and not part of the hash
        same_data = self.folder is not None or record["config"]["data"] == job.portable["data"]
        return record if same_data and (record["config_hash"], record["seed"]) == (job.hash, job.seed) else None

    def all(self) -> list[Record]:
        return [record for known in self._found.values() for record in known.values()]

    def _found_of(self, job: Job) -> tuple[Path, Record] | None:
        """A record of the run's configuration and seed: its own, or another one on the same data."""
        known = self._found.get((job.hash, job.seed), {}) if self.folder is not None else {}
        for path, record in known.items():  # suites on other data may have the same configurations
            if path == job.record or self._other_data(job, record) is None:
                return path, record
        return None

    def _add(self, path: Path, record: Record) -> None:
        self._found.setdefault((record["config_hash"], record["seed"]), {})[path] = record

    def _stale(self, job: Job, record: Record) -> str | None:
        if changed := changed_plugins(record):
            return f"made with another version of {', '.join(changed)}"
        made = record.get("numerics", {})
        parts = [  # a part of the backbone that a record of version 0.1 does not have is taken to be the same
            part
            for part, number in job.numerics.items()
            if made.get(part, number if part.startswith(BACKBONE) else None) != number
        ]
        if parts and not self.any_numerics:
            return f"made with {describe_difference(made, job.numerics, parts)}"
        return self._other_data(job, record)

    def _other_data(self, job: Job, record: Record) -> str | None:
        if job.after is not None and job.method != RANDOM:
            pretraining = self.of(job.after)[0]
            other = self._other_data(job.after, pretraining) if pretraining else None
            if other:
                return f"its backbone was {other}"
            if pretraining and (found := changes(pretraining, record.get("pretrained", {}))):
                return f"its backbone was made with other data: {'; '.join(found)}"
        if not record.get("data") and record["split_hash"] is None:
            return None
        found = changes(record, self._present(job))
        return f"made with other data: {'; '.join(found)}" if found else None

    def _present(self, job: Job) -> dict[str, Any]:
        """What a record of ``job`` would say of its data; nothing if they are not present."""
        data = job.config.data
        sources = [getattr(data, part, None) for part in ("train", "eval", "test", "feedback")]
        split = [getattr(data, key, None) for key in ("val_fraction", "split_seed")]
        key = json.dumps([job.task, *sources, *split], sort_keys=True, default=str)
        if key not in self._known:
            try:
                self._known[key] = _describe(job)
            except MlomaeError:
                self._known[key] = {}
        return self._known[key]


def _describe(job: Job) -> dict[str, Any]:
    """Open the data of ``job``, and describe them as records do."""
    if job.task == PRETRAIN:
        sources = open_sources(job.config)
        return {"data": describe_contents(sources), "split_hash": find_split(job.config, sources).hash}
    train, test = get_task(job.task).create_steps(job.config).open_data()
    return {"data": describe_contents({"train": train, "test": test})}
