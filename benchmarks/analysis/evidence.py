"""What tables, figures and the report are made of: the run records, and the files next to their folder.

Those files are predictions, FLOPs, published numbers and the list of the records that each figure was drawn from.
"""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.analysis.comparable import METRICS, is_tuning, setting_of
from benchmarks.analysis.data_sets import pretrained_on, settle_data
from benchmarks.analysis.published import PublishedNumber, read_published
from benchmarks.tasks import all_tasks
from mlomae.backbones.task import Task, TestedRun
from mlomae.common.errors import DataError
from mlomae.common.files import read_json
from mlomae.common.ownership import owned
from mlomae.records import (
    PREDICTIONS,
    RANDOM,
    Record,
    contents_of,
    grouped,
    predictions_of,
    read_named_records,
    run_phrase,
)

FIGURE_SOURCES = "sources.json"  # in the folder of figures
FLOPS_KEYS = ("lower_step", "upper", "total", "batch")
TOLERANCE = 1e-6  # percentage points between a record's metric and that of its predictions
# cost -> keys that lead to it in a pretraining's own record, and in ``pretrained`` of a transfer's
_COSTS = {
    "images_seen": (("images_seen", "lower"), ("images_seen",)),  # by the reconstruction level
    "wall_clock_s": (("wall_clock_s",), ("clock", "wall")),
    "cpu_s": (("cpu_s",), ("clock", "cpu")),
}


@dataclass
class Evidence:
    """The records with their predictions and FLOPs, and the pretraining that each record depends on.

    Attributes:
        records: by file, relative to their folder, sorted.
        flops: of a whole pretraining, by its config hash.
        published: the lines of `published.csv`.
        tested: the checked predictions, by the file of their record.
        masks: the folder that `mlomae masks` writes to.
    """

    records: dict[str, Record]
    flops: dict[str, float] = field(default_factory=dict)
    published: list[PublishedNumber] = field(default_factory=list)
    tested: dict[str, TestedRun] = field(default_factory=dict)
    masks: Path = Path("results/masks")

    def __post_init__(self) -> None:
        settle_data(self.records.values())
        self._files = {id(record): name for name, record in self.records.items()}
        self._costs: dict[tuple[int, str], float | None] = {}  # every column asks again
        self._by_hash: dict[str, list[Record]] = {}
        for r in self.records.values():
            if r["task"] != "speed":
                self._by_hash.setdefault(r["config_hash"], []).append(r)

    def of_task(self, task: str) -> list[Record]:
        """All records of a task but `tuning`."""
        return [r for r in self.records.values() if r["task"] == task and not is_tuning(r)]

    @property
    def tuning(self) -> list[Record]:
        return [r for r in self.records.values() if is_tuning(r)]

    @property
    def probed(self) -> list[Record]:
        """Pretrainings with all of `METRICS`."""
        return [r for r in self.of_task("pretrain") if all(metric in r["metrics"] for metric in METRICS)]

    @cached_property
    def settings(self) -> list[list[Record]]:
        """`probed`, those together that may be compared (`setting_of`)."""
        return list(grouped(self.probed, setting_of).values())

    def files_of(self, records: Iterable[Record]) -> list[str]:
        return sorted({self._files[id(record)] for record in records})

    def file_of(self, record: Record) -> str:
        return self._files[id(record)]

    def tested_of(self, record: Record) -> TestedRun | None:
        """The predictions of a record of ``records``, None without them."""
        return self.tested.get(self._files[id(record)])

    def pretraining_of(self, record: Record) -> Record | None:
        """A record, of any seed, of the pretraining that ``record`` is or builds on, through any fine-tunings in
        between; None if it is not in ``records``."""
        found: Record | None = record
        while found is not None and found["task"] != "pretrain":
            found = self._made(found)
        return found

    def _made(self, record: Record) -> Record | None:
        """A record, of any seed, of the run that made the backbone of the transfer ``record``, on the same images.

        Of several, one that knows its images as the transfer does: where both do not, they are of one earlier version.
        """
        known, images = self._by_hash.get(self.backbone_config_of(record), []), pretrained_on(record)
        fits = [r for r in reversed(known) if not images or contents_of(r).get("train", images) == images]
        return next((r for r in fits if bool(contents_of(r).get("train")) == bool(images)), next(iter(fits), None))

    def backbone_config_of(self, record: Record) -> str:
        """The hash of the pretraining's configuration, or of the last fine-tuning's before this run; "" if unknown."""
        return str((record if record["task"] == "pretrain" else _backbone_of(record)).get("config_hash", ""))

    def cost(self, record: Record, what: str) -> float | None:
        """``images_seen``, ``wall_clock_s``, ``cpu_s`` or ``flops`` of the pretraining; 0 without one, None if unknown.

        Where a transfer does not say how many images, as of an export, the pretraining's own record does.
        """
        pretrained = record["task"] == "pretrain"
        if not pretrained and record["method"] == RANDOM:
            return 0.0
        digest = self.backbone_config_of(record)
        complete = record if pretrained else self._made(record)  # the pretraining that ended with this backbone
        if not pretrained and complete and complete["outer_iterations"] != _backbone_of(record).get("iteration"):
            complete = None
        if what == "flops":
            return self.flops.get(digest) if complete else None
        own, before = _COSTS[what]
        found = _number(record, own) if pretrained else _number(record.get("pretrained"), before)
        return _number(complete, own) if found is None and what == "images_seen" else found

    def mean_cost(self, runs: list[Record], what: str) -> float | None:
        """The mean of `cost` over ``runs``, None if it is unknown for one of them."""
        known = [cost for r in runs if (cost := self._known_cost(r, what)) is not None]
        return statistics.fmean(known) if len(known) == len(runs) else None

    def _known_cost(self, record: Record, what: str) -> float | None:
        key = id(record), what
        if key not in self._costs:
            self._costs[key] = self.cost(record, what)
        return self._costs[key]


def _backbone_of(record: Record) -> dict[str, Any]:
    """What a transfer's configuration says of its backbone: method, config_hash, iteration where known."""
    weights = record["config"].get("backbone", {}).get("weights")
    return weights if isinstance(weights, dict) else {}


def _number(found: Any, path: tuple[str, ...]) -> float | None:
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None


def read_evidence(folder: Path) -> Evidence:
    """Everything in a folder of records and in the folder around it, checked.

    Raises DataError, one line that names the file, for a record that cannot be read or is of a demo, predictions that
    do not belong to their record or have none, and a damaged list of FLOPs or published numbers.
    """
    earlier = set(folder.rglob(f"{PREDICTIONS}/*.npz"))  # a run writes its predictions, then its record
    records = read_measured(folder)
    flops = {digest: float(entry["total"]) for digest, entry in read_flops(folder.parent / "flops.json").items()}
    published = read_published(folder.parent / "published.csv")
    paths = {name: path for name, r in records.items() if (path := find_predictions(name, r, folder)) is not None}
    tested = {name: read_tested(path, records[name]) for name, path in paths.items()}
    if orphans := earlier.difference(paths.values()):
        with owned(folder, patience=60):  # by a run between the two, if one is
            orphans = {path for path in orphans if not _record_of(path).exists()}
    if orphans:
        odd = min(orphans)
        where = f"no record of that name in '{_record_of(odd).parent}'"
        raise DataError(f"predictions '{odd.name}' have {where}; put it there or remove them")
    return Evidence(records, flops, published, tested)


def _record_of(predictions: Path) -> Path:
    return predictions.parent.with_name(f"{predictions.stem}.json")


def find_predictions(name: str, record: Record, folder: Path) -> Path | None:
    """The file of predictions of the record in the file ``name`` of ``folder``, None without one.

    Until version 0.1 they were in a folder next to that of the records, and of two such folders' runs of one name the
    last one's: only those of the record's configuration and run are its own. Raises DataError for a damaged file.
    """
    path, older = predictions_of(name, folder), folder.parent / PREDICTIONS / Path(name).with_suffix(".npz")
    if path.is_file() or not older.is_file():
        return path if path.is_file() else None
    found = _predictions_in(older, record)
    own = record["config_hash"], run_phrase(record["method"], record["name"], record["seed"])
    return older if found is not None and (found.config_hash, found.run or own[1]) == own else None


def read_flops(path: Path) -> dict[str, dict[str, int]]:
    """Hash of a configuration -> what `benchmarks.cost.flops` says of it; empty without a file.

    Raises DataError for another content.
    """

    def is_valid(digest: str, entry: Any) -> bool:
        return sorted(entry) == sorted(FLOPS_KEYS) and all(type(n) is int and n >= 0 for n in entry.values())

    return _read_written(path, is_valid, "make flops")


def _read_written(path: Path, is_valid: Callable[[str, Any], bool], command: str) -> dict[str, Any]:
    """The JSON object that ``command`` wrote, {} without a file; DataError if it or one of its items is not valid."""
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = read_json(path)
        valid = all(is_valid(key, value) for key, value in found.items())
    except (ValueError, AttributeError, TypeError):
        valid = False
    if not valid:
        raise DataError(f"'{path}' does not hold what `{command}` writes; remove it and run that again")
    return found


def read_measured(folder: Path) -> dict[str, Record]:
    """`read_named_records`; DataError if one of them is a demo run, or has no numbers or sections where tables read
    them."""
    records = read_named_records(folder)
    for name, record in records.items():
        if odd := _odd_field(record):
            raise DataError(f"record '{name}': field '{odd}' is not what runs write there; move it out of '{folder}'")
        if record["demo"]:
            raise DataError(f"record '{name}' is a demo run; move it out of '{folder}', demos are not results")
    return records


def _odd_field(record: Record) -> str | None:
    """The first field that tables read and that is of another kind than runs write; None if all are as they should."""
    metrics, config, pretrained = record["metrics"], record["config"], record["task"] == "pretrain"
    task = _task_of(record)
    numbers = list(metrics) if task is None else [metric.name for metric in task.metrics]
    odd = [f"metrics.{key}" for key in numbers if isinstance(metrics.get(key), dict)]
    sections = ("data", *(("model", "mask", "levels", "optim") if pretrained else ("backbone",)))
    odd += [f"config.{key}" for key in sections if not isinstance(config.get(key, {}), dict)]
    setting = config.get("setting")  # of a speed run
    if record["task"] == "speed" and not (isinstance(setting, dict) and isinstance(setting.get("name"), str)):
        odd.append("config.setting")
    if not odd:
        sources = config.get("data", {})
        parts = ("train", "eval", "test", "feedback")
        odd += [f"config.data.{part}" for part in parts if not isinstance(sources.get(part), dict | None)]
    return odd[0] if odd else None


def read_tested(path: Path, record: Record) -> TestedRun:
    """The predictions at ``path``, which must be those of ``record``.

    Raises DataError, one line that names the file, if it cannot be read, or if its configuration, run, metric or number
    of images differs from the record's.
    """
    remedy = "put back the file that the run wrote, or remove it"
    found = _predictions_in(path, record)
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


def _task_of(record: Record) -> Task | None:
    """None for a pretraining and a measurement of speed."""
    return next((task for task in all_tasks() if task.name == record["task"]), None)


def _predictions_in(path: Path, record: Record) -> TestedRun | None:
    """What the task of ``record`` reads from the file, None for a task without predictions."""
    task = _task_of(record)
    return None if task is None else task.read_predictions(path)


def read_figure_sources(folder: Path) -> dict[str, list[str]]:
    """{figure: files it was drawn from} of a folder of figures, {} without the list; DataError for a damaged one."""

    def is_valid(figure: str, files: Any) -> bool:
        named = Path(figure).name == figure
        return named and isinstance(files, list) and all(isinstance(file, str) for file in files)

    return _read_written(folder / FIGURE_SOURCES, is_valid, "make figures")


def figure_of(name: str, figures: Iterable[str]) -> str:
    """The figure that a file belongs to: the longest of ``figures`` that its name begins with, "" if none."""
    return max((figure for figure in figures if name == figure or name.startswith(f"{figure}_")), key=len, default="")
