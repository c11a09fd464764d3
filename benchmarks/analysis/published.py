"""Published numbers from `results/published.csv`: read, checked, and shown next to a run only if both measure the same.

They are copied, never changed, and never averaged with ours. ``evidence`` is primary where the authors of a method, or
of a reproduction, say it themselves, secondary where somebody else's table does.
"""

import csv
import math
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from benchmarks.tasks import all_tasks
from mlomae.common.errors import DataError
from mlomae.records import Record

EVIDENCE = ("primary", "secondary")
# our recipes whose protocol is a published one
RECIPES = {name: protocol for task in all_tasks() for name, protocol in task.published.items()}
_PATCHES = {"base": 16, "large": 16, "huge": 14}


@dataclass(frozen=True)
class PublishedNumber:
    """A line of the file; ``value`` in percent, ``pretrain_epochs`` None where the source does not say."""

    line: int
    method: str
    backbone: str
    pretrain_epochs: int | None
    task: str
    dataset: str
    metric: str
    value: str
    evidence: str
    source: str
    note: str

    @property
    def cells(self) -> list[str]:
        """The values of `COLUMNS`, as text."""
        return ["" if value is None else str(value) for value in astuple(self)[1:]]

    @property
    def phrase(self) -> str:
        """The number and what it depends on, for a cell."""
        epochs = f"{self.pretrain_epochs} epochs" if self.pretrain_epochs else "epochs not stated"
        return f"{self.value} ({epochs}{'; ' + self.note if self.note else ''})"

    @property
    def citation(self) -> str:
        """Where the number is from."""
        return f"published.csv, line {self.line}: {self.source}"


COLUMNS = [field.name for field in fields(PublishedNumber)][1:]


def read_published(path: Path) -> list[PublishedNumber]:
    """The lines of the file, none if it is not there.

    Raises DataError, one line that names file and line, for other columns, evidence that is neither primary nor
    secondary, a value that is no finite number, epochs that are no positive integer, or an empty cell.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns, rows = reader.fieldnames, [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path.name}' is not a table in UTF-8 ({error}); copy the file again") from error
    if columns != COLUMNS:
        raise DataError(f"'{path.name}' must have the columns {', '.join(COLUMNS)}; copy the file again")
    return [_number(f"'{path.name}' line {line}", line, row) for line, row in rows]


def _number(where: str, line: int, row: dict[str, str]) -> PublishedNumber:
    if None in row or None in row.values():
        raise DataError(f"{where} has not {len(COLUMNS)} cells; quote cells that hold a comma")
    if empty := [c for c in COLUMNS if not row[c] and c not in ("pretrain_epochs", "note")]:
        raise DataError(f"{where} has no {empty[0]}; fill it in, with its source")
    if row["evidence"] not in EVIDENCE:
        raise DataError(f"{where}: evidence '{row['evidence']}' must be {' or '.join(EVIDENCE)}")
    try:
        finite = math.isfinite(float(row["value"]))
    except ValueError:
        finite = False
    if not finite:
        raise DataError(f"{where}: value '{row['value']}' is no finite number; give a percentage")
    epochs = row["pretrain_epochs"]
    if epochs and not (epochs.isdecimal() and int(epochs)):
        raise DataError(f"{where}: pretrain_epochs '{epochs}' must be a positive integer, or nothing")
    return PublishedNumber(line, **{**row, "pretrain_epochs": int(epochs) if epochs else None})  # type: ignore[arg-type]


def _backbone(pretraining: Record) -> str | None:
    """``vit_base`` and so on for the ViTs that papers pretrain, None for any other shape."""
    model = pretraining["config"].get("model", {})
    size, changed = model.get("size"), any(model.get(k) for k in ("embed_dim", "depth", "num_heads"))
    usual = model.get("img_size") == 224 and model.get("patch_size") == _PATCHES.get(size)
    return f"vit_{size}" if usual and not changed else None


def _whole(record: Record) -> bool:
    """Whether the sources are all of their data sets: they say in parentheses what they leave out."""
    return "(" not in record["train_source"] + record["eval_source"]


def lines_up(number: PublishedNumber, record: Record, pretraining: Record | None, metric: str) -> bool:
    """Whether ``number`` is comparable with ``metric`` of ``record``, a transfer of the backbone of ``pretraining``.

    Method, backbone, data set, metric and protocol must agree, pretraining be on ImageNet, and both data sets be whole.
    """
    if pretraining is None or record["name"] not in RECIPES:
        return False
    ours = RECIPES[record["name"]]
    same = (number.method, number.backbone) == (record["method"], _backbone(pretraining))
    meant = (number.dataset, number.metric) == (ours.dataset, ours.metrics.get(metric)) and ours.note in number.note
    return same and meant and pretraining["dataset"] == "imagenet" and _whole(pretraining) and _whole(record)
