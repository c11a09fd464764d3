"""The parts of the page as HTML: sortable tables whose numbers can be clicked, sections, text in Markdown.

Arguments are plain text and escaped here, except where they are said to be HTML.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

LONG = 32  # the text of a cell with more letters may wrap
FILTERED = 6  # a table with this many rows or more gets a filter box
_CODE = re.compile(r"`([^`]*)`")
_RAISED = re.compile(r"&lt;sup&gt;(\w+)&lt;/sup&gt;")


@dataclass(frozen=True)
class Part:
    """A heading with HTML below it; ``name`` is its id."""

    name: str
    title: str
    body: str


@dataclass(frozen=True)
class Section:
    """``note``: Markdown. ``body``: HTML."""

    name: str
    title: str
    note: str = ""
    body: str = ""
    parts: list[Part] = field(default_factory=list)

    def html(self) -> str:
        lines = [f'<section id="{self.name}"><h2>{escape(self.title)}</h2>']
        lines += [f'<p class="note">{inline(self.note)}</p>'] if self.note else []
        lines += [links(self.parts)] if self.parts[1:] else []
        lines += [self.body] if self.body else []
        for part in self.parts:
            lines.append(f'<h3 id="{escape(part.name)}">{escape(part.title)}</h3>\n{part.body}')
        return "\n".join([*lines, "</section>"])


def links(places: Sequence[Part | Section]) -> str:
    """A list of links to ``places``."""
    items = "".join(f'<li><a href="#{escape(p.name)}">{escape(p.title)}</a></li>' for p in places)
    return f'<ul class="links">{items}</ul>'


def inline(markdown: str) -> str:
    """Markdown of a paragraph: code and raised letters, nothing else."""
    return _RAISED.sub(r"<sup>\1</sup>", _CODE.sub(r"<code>\1</code>", escape(markdown, quote=False)))


def number_of(text: str) -> float | None:
    """The finite number that a cell is, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def grouped_digits(text: str) -> str:
    """A count with thousands separators."""
    return f"{int(text):,}" if text.isdecimal() and len(text) > 4 else text


def button(text: str, entry: int | None, title: str) -> str:
    """Text that opens an entry of the provenance under ``title``; plain text without an entry."""
    if entry is None or not text:
        return escape(text)
    return f'<button type="button" data-p="{entry}" data-title="{escape(title)}">{escape(text)}</button>'


def cell(html: str, value: str = "", kind: str = "") -> str:
    """A cell that sorts by ``value`` where that is a number, else by what it shows."""
    classes = f' class="{kind}"' if kind else ""
    return (
        f'<td{classes} data-v="{escape(value)}">{html}</td>'
        if number_of(value) is not None
        else f"<td{classes}>{html}</td>"
    )


def wrapping(text: str) -> str:
    """The kind of a cell with text."""
    return "text" if len(text) > LONG else ""


def html_table(name: str, caption: str, titles: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    """A table with the id ``name``. ``titles``: HTML. ``rows``: (text of the first column, cells of the others)."""
    heads = "".join(f'<th scope="col"><button type="button">{title}</button></th>' for title in titles)
    body = "\n".join(f'<tr><th scope="row">{escape(first)}</th>{"".join(cells)}</tr>' for first, cells in rows)
    box = f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0">'
    table = f'{box}<table id="{name}"><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    if len(rows) < FILTERED:
        return table
    asked = f'<input type="search" data-filters="{name}" placeholder="words, in any order">'
    return f'<p class="filter"><label>Show rows with {asked}</label> <output>{len(rows)} rows</output></p>\n{table}'
