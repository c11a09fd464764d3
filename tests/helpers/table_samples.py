"""A table as `make tables` makes it, of records that lie nowhere."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.build import TABLES
from benchmarks.analysis.tables.table import csv_of


def table_files(name: str, records: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """CSV and Markdown of the table ``name``."""
    frame, page = TABLES[name].build(Evidence({f"{i}.json": record for i, record in enumerate(records)}))
    return csv_of(frame), page


def table_rows(name: str, records: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows of its CSV."""
    return list(csv.DictReader(io.StringIO(table_files(name, records)[0])))
