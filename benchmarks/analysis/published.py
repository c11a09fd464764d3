"""Published numbers from `results/published.csv`: read, checked, and shown next to a run only if both measure the same.

They are copied, never changed, and never averaged with ours. ``evidence`` is primary where the authors of a method, or
of a reproduction, report the number themselves, secondary where another paper's table does.
"""

import csv
import io
import math
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.tasks import all_tasks
from mlomae.common.errors import DataError
from mlomae.common.files import read_text
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
    secondary, a value that is not a finite number, epochs that are not a positive integer, or an empty cell.
    """
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        columns, rows = reader.fieldnames, [(reader.line_num, row) for row in reader]
    except (ValueError, csv.Error) as error:
        raise DataError(f"'{path.name}' is not a table in UTF-8 ({error}); copy the file again") from error
    if columns != COLUMNS:
        raise DataError(f"'{path.name}' must have the columns {', '.join(COLUMNS)}; copy the file again")
    return [PublishedNumber(line, **_checked(f"'{path.name}' line {line}", row)) for line, row in rows]


def _checked(where: str, row: dict[str, str]) -> dict[str, Any]:
    """The fields of a line. Raises DataError that begins with ``where``."""
    if None in row or None in row.values():
        raise DataError(f"{where} does not have {len(COLUMNS)} cells; quote cells that hold a comma")
    if empty := [c for c in COLUMNS if not row[c] and c not in ("pretrain_epochs", "note")]:
        raise DataError(f"{where} has no {empty[0]}; fill it in, with its source")
    if row["evidence"] not in EVIDENCE:
        raise DataError(f"{where}: evidence '{row['evidence'][:40]}' must be {' or '.join(EVIDENCE)}")
    try:
        value = float(row["value"])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: value '{row['value'][:40]}' is not a finite number; give a percentage")
    epochs = row["pretrain_epochs"]
    if epochs and not (epochs.isdecimal() and len(epochs) < 10 and int(epochs)):
        raise DataError(f"{where}: pretrain_epochs '{epochs[:40]}' must be a positive integer, or nothing")
    return {**row, "pretrain_epochs": int(epochs) if epochs else None}


def lines_up(number: PublishedNumber, record: Record, pretraining: Record | None, metric: str) -> bool:
    """Whether ``number`` is comparable with ``metric`` of ``record``, a transfer of the backbone of ``pretraining``.

    Method, backbone (one of the ViTs that papers pretrain), data set, metric and protocol must agree, the pretraining
    must be on ImageNet, and both data sets must be complete.
    """
    ours = RECIPES.get(record["name"])
    if pretraining is None or ours is None:
        return False
    model = pretraining["config"].get("model", {})
    size, changed = model.get("size"), any(model.get(k) for k in ("embed_dim", "depth", "num_heads"))
    usual = model.get("img_size") == 224 and model.get("patch_size") == _PATCHES.get(size) and not changed
    sources = [run[source] for run in (pretraining, record) for source in ("train_source", "eval_source")]
    return (
        usual
        and (number.method, number.backbone) == (record["method"], f"vit_{size}")
        and (number.dataset, number.metric) == (ours.dataset, ours.metrics.get(metric))
        and ours.note in number.note
        and pretraining["dataset"] == "imagenet"
        and not any("(" in source for source in sources)  # parentheses say what is left out of a data set
    )
