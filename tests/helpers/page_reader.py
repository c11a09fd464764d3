"""The page as a test sees it: tags checked for balance, ids, tables by id, and what its script reads."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "img", "input", "br", "link", "hr"}


@dataclass
class Cell:
    text: str = ""
    value: str | None = None  # what it sorts by
    asked: list[tuple[str, int]] = field(default_factory=list)  # (title of the dialog, entry of the provenance)


class Page(HTMLParser):
    """``tables``: id -> rows of cells, the head first; ``attributes``: of all tags, (tag, name, value)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[Cell]]] = {}
        self.texts: dict[str, str] = {}  # by tag, of all of its elements
        self.script = ""
        self._in_table = ""
        self._in_json = False
        self.feed(text)
        self.close()
        assert not self.open, self.open
        self.data: dict[str, Any] = json.loads(self.script)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs), f"{tag} has an attribute twice"
        self.attributes += [(tag, name, value) for name, value in found.items()]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._in_table = found["id"]
            self.tables[self._in_table] = []
        elif tag == "tr":
            self.tables[self._in_table].append([])
        elif tag in ("th", "td"):
            self.tables[self._in_table][-1].append(Cell(value=found.get("data-v")))
        elif tag == "button" and "data-p" in found and self._in_table:
            self._cell().asked.append((found["data-title"], int(found["data-p"])))
        self._in_json = found.get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "table":
            self._in_table = ""

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data
        if self._in_json:
            self.script += data
            self._in_json = False
        elif self._in_table and ("th" in self.open or "td" in self.open):
            self._cell().text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def _cell(self) -> Cell:
        return self.tables[self._in_table][-1][-1]

    def records_of(self, entry: int) -> list[tuple[str, list[str]]]:
        """(role, files) of an entry."""
        return [
            (role, [self.data["records"][number][0] for number, _ in runs]) for role, runs in self.data["cells"][entry]
        ]
