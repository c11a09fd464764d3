"""What tables, figures and the report are made of: records, and what lies beside their folder.

That is predictions, FLOPs, published numbers and the list of the records that each figure was drawn from.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks.analysis.lineage import Lineage
from benchmarks.analysis.published import PublishedNumber, read_published
from benchmarks.cost.flops.file import read_flops
from benchmarks.tasks import all_tasks
from mlomae.backbones.task import TestedRun
from mlomae.common.errors import DataError
from mlomae.records import Record, predictions_folder, predictions_of, read_named_records, run_phrase

FIGURE_SOURCES = "sources.json"  # beside the figures
TOLERANCE = 1e-6  # percentage points between a record's metric and that of its predictions


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

    @cached_property
    def lineage(self) -> Lineage:
        return Lineage(self.records.values(), self.flops)

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


def read_tested(path: Path, record: Record) -> TestedRun:
    """The predictions at ``path``, which must be those of ``record``.

    Raises DataError, one line that names the file, if it cannot be read, if its configuration or run is another than
    the record's, or if it gives another metric or number of images than the record.
    """
    remedy = "put back the file that the run wrote, or remove it"
    task = next((task for task in all_tasks() if task.name == record["task"]), None)
    found = None if task is None else task.read_predictions(path)
    if found is None:
        raise DataError(f"predictions '{path.name}' are of a {record['task']} record, which has none; remove them")
    if found.config_hash != record["config_hash"]:
        theirs = f"{found.config_hash}, the record's is {record['config_hash']}"
        raise DataError(f"predictions '{path.name}' belong to the configuration {theirs}; {remedy}")
    expected = run_phrase(record["method"], record["name"], record["seed"])
    if found.run not in (None, expected):
        raise DataError(f"predictions '{path.name}' belong to the run '{found.run}', not to '{expected}'; {remedy}")
    value, images = found.sums.whole(), len(found.index)
    said, counted = record["metrics"].get(found.metric, math.nan), record["metrics"].get("n", images)
    if not abs(value - said) <= TOLERANCE or counted != images:
        ours, theirs = f"{found.metric} {value:.4f} on {images} images", f"{said:.4f} on {counted}"
        raise DataError(f"predictions '{path.name}' give {ours}, the record says {theirs}; {remedy}")
    return found


def read_figure_sources(folder: Path) -> dict[str, list[str]]:
    """{figure: files it was made from} of a folder of figures, {} without the file; DataError for a damaged one."""
    path = folder / FIGURE_SOURCES
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"'{path}' is not valid JSON ({error}); remove it and run again") from error
    lists = isinstance(found, dict) and all(
        isinstance(files, list) and Path(figure).name == figure for figure, files in found.items()
    )
    if not lists or not all(isinstance(file, str) for files in found.values() for file in files):
        raise DataError(f"'{path}' does not map figures to lists of records; remove it and run again")
    return found


def figure_of(name: str, figures: Iterable[str]) -> str:
    """The figure that a file of this name is of: the longest of ``figures`` that it begins with, "" if none."""
    return max((figure for figure in figures if name == figure or name.startswith(f"{figure}_")), key=len, default="")
