"""All that tables are made of: the records, and beside their folder predictions, FLOPs and published numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.analysis.image_sums import TestedRun, read_tested
from benchmarks.analysis.published import PublishedNumber, read_published
from benchmarks.cost.flops.file import read_flops
from mlomae.common.errors import DataError
from mlomae.records import Record, predictions_folder, predictions_of, read_named_records


@dataclass
class Evidence:
    """``records``: by file, relative to ``folder``, sorted. ``flops``: of a whole pretraining, by its config hash.
    ``tested``: the checked predictions, by the file of their record."""

    folder: Path
    records: dict[str, Record]
    flops: dict[str, float] = field(default_factory=dict)
    published: list[PublishedNumber] = field(default_factory=list)
    tested: dict[str, TestedRun] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._files = {id(record): name for name, record in self.records.items()}

    def of_task(self, task: str) -> list[Record]:
        return [r for r in self.records.values() if r["task"] == task]

    def file_of(self, record: Record) -> str:
        return self._files[id(record)]

    def tested_of(self, record: Record) -> TestedRun | None:
        """The predictions of a record of ``records``, None without them."""
        return self.tested.get(self._files[id(record)])


def read_evidence(folder: Path) -> Evidence:
    """Everything of a folder of records and of the folder it is in, checked.

    Raises DataError, one line that names the file, for a record that cannot be read or is of a demo, predictions that
    are not those of their record or have none, and a damaged list of FLOPs or published numbers.
    """
    records = read_measured(folder)
    flops = {digest: float(entry["total"]) for digest, entry in read_flops(folder.parent / "flops.json").items()}
    published = read_published(folder.parent / "published.csv")
    return Evidence(folder, records, flops, published, _read_tested(folder, records))


def read_measured(folder: Path) -> dict[str, Record]:
    """`read_named_records`, of which none may be of a demo: DataError."""
    records = read_named_records(folder)
    for name, record in records.items():
        if record["demo"]:
            raise DataError(f"record '{name}' is a demo run; move it out of '{folder}', demos are not results")
    return records


def _read_tested(folder: Path, records: dict[str, Record]) -> dict[str, TestedRun]:
    beside = predictions_folder(folder)
    left = {path.as_posix() for path in beside.rglob("*.npz")}
    found = {}
    for name, record in records.items():
        path = predictions_of(name, folder)
        if path.as_posix() in left:
            left.remove(path.as_posix())
            found[name] = read_tested(path, record)
    if left:
        odd = Path(min(left)).relative_to(beside).as_posix()
        raise DataError(f"predictions '{odd}' have no record of that name in '{folder}'; put it there or remove them")
    return found
