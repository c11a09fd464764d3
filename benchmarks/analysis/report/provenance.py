"""The records that each number on the page is made of, which it shows when the number is clicked."""

import json
from collections.abc import Iterable
from typing import Any

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables.table import OWN, Row
from benchmarks.analysis.tables.trace import line_of, sources_of, value_of


class Provenance:
    """Entries are lists of [role, [[number of a record, what it contributes], ...]]; equal ones are stored once."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._numbers = {file: i for i, file in enumerate(evidence.records)}
        self._entries: dict[str, int] = {}

    def of_cell(self, row: Row, column: str) -> int | None:
        """The number of the entry of a table's cell; None without any record."""
        parts, known = [], self._evidence
        for role, records in sources_of(row, column):
            given = [[self._numbers[known.file_of(r)], _text(value_of(r, row, column, known))] for r in records]
            parts.append(["runs of this row" if role == OWN else role, given])
        return self._add(parts) if parts else None

    def of_files(self, role: str, files: Iterable[str]) -> int | None:
        """The number of an entry for whole records; None without any."""
        numbers = [[self._numbers[file], ""] for file in files]
        return self._add([[role, numbers]]) if numbers else None

    def _add(self, parts: list[Any]) -> int:
        return self._entries.setdefault(json.dumps(parts, ensure_ascii=False), len(self._entries))

    def as_json(self) -> str:
        """{"fields": names, "records": [texts of each], "cells": entries}, for a script element: no text closes it."""
        facts = [
            line_of(r, self._evidence) | {"processor (s)": r["cpu_s"], "finished": r["finished_at"]}
            for r in self._evidence.records.values()
        ]
        fields = json.dumps(list(facts[0]) if facts else [])
        records = json.dumps([[_text(v) for v in fact.values()] for fact in facts], ensure_ascii=False)
        text = f'{{"fields":{fields},\n"records":{records},\n"cells":[{",".join(self._entries)}]}}'
        return text.replace("<", "\\u003c")


def _text(value: Any) -> str:
    """A number with all the digits that a table could show."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
