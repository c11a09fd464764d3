"""Which runs of a suite are completed: those with a record of the same configuration, seed, NUMERICS and split.

- Configuration and seed: the record has the run's ``config_hash`` and ``seed``. Names and folders do not matter, so
  suites share records.
- NUMERICS: the record was made with the current numbers of all parts that the run depends on
  (`mlomae.common.numerics`), and with the current source of its plug-ins (`mlomae.config.plugins`).
- Split: the levels of a pretraining get the same images as in the record. This is checked only if the data are present;
  without them the run could not be repeated anyway.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.suite.jobs import PRETRAIN, Job
from mlomae.common.errors import ConfigError, MlomaeError
from mlomae.common.numerics import BACKBONE, describe_difference
from mlomae.config.plugins import changed_plugins
from mlomae.pretraining.run import find_split
from mlomae.records import RANDOM, Record, read_named_records, read_record


@dataclass
class CompletedRuns:
    """The records of ``folder``; None for a demo, whose records lie in the folders of its runs.

    ``any_numerics``: a record of other NUMERICS counts as well.
    """

    folder: Path | None
    any_numerics: bool = False
    _found: dict[tuple[str, int], tuple[Path, Record]] = field(default_factory=dict)
    _splits: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is not None and self.folder.is_dir():
            for name, record in read_named_records(self.folder).items():
                self._found[record["config_hash"], record["seed"]] = self.folder / name, record

    def of(self, job: Job) -> tuple[Record | None, str | None]:
        """(the record of a run or None, the reason why it does not count or None).

        Raises ConfigError if a record of another configuration is where the run's record belongs.
        """
        record = self.path_and_record(job)[1]
        return record, None if record is None else self._stale(job, record)

    def path_and_record(self, job: Job) -> tuple[Path, Record | None]:
        """The path of a run's record, and the record, whether it counts or not. Errors as `of`."""
        if self.folder is not None and (job.hash, job.seed) in self._found:
            return self._found[job.hash, job.seed]
        record = self.add(job)
        if record is None and job.record.is_file():
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
        self._found[record["config_hash"], record["seed"]] = job.record, record
        # the folder of embedded data is named after its content, and not part of the hash
        same_data = self.folder is not None or record["config"]["data"] == job.portable["data"]
        return record if same_data and (record["config_hash"], record["seed"]) == (job.hash, job.seed) else None

    def all(self) -> list[Record]:
        return [record for _, record in self._found.values()]

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
        return self._other_split(job, record)

    def _other_split(self, job: Job, record: Record) -> str | None:
        if job.after is not None and job.method != RANDOM:
            pretraining = self.of(job.after)[0]
            other = self._other_split(job.after, pretraining) if pretraining else None
            return f"its backbone was {other}" if other else None
        if job.task != PRETRAIN or record["split_hash"] is None:
            return None
        data = job.config.data
        key = json.dumps([data.train, data.feedback, data.val_fraction, data.split_seed], sort_keys=True)
        if key not in self._splits:
            try:
                self._splits[key] = find_split(job.config).hash
            except MlomaeError:  # the data are not present
                self._splits[key] = None
        return None if self._splits[key] in (None, record["split_hash"]) else "made with another split of the data"
