"""Figures and masks inside the page, each with the records it was made of.

A sheet of masks that a figure shows already is not shown again.
"""

import base64
from html import escape
from pathlib import Path

from benchmarks.analysis.evidence import FIGURE_SOURCES, Evidence, figure_of, read_figure_sources
from benchmarks.analysis.report.markup import Part, Section, button
from benchmarks.analysis.report.provenance import Provenance
from mlomae.common.errors import DataError, reason_of
from mlomae.common.files import read_json

_KINDS = {"svg": "image/svg+xml", "png": "image/png"}  # the first that exists is shown
_MASKS = "masks"
_FIGURES = {
    "forest": "Differences to MAE",
    "map": "Where looking at the image pays",
    "tuning": "What tuning gains",
    "levels": "The three levels of an outer iteration, and the gradients between them",
    "bilevel": "Two levels against three",
    "mask_ratio": "Accuracy against the mask ratio",
    "loss_curves": "Losses of the three levels in training",
    "cost": "k-NN accuracy against the processor time of pretraining",
    "cost_linear": "Linear probe against the processor time of pretraining",
    "masks": "What is removed from the same images",
}
_ZOOM = "Click or tap a picture for its full size."


def picture_sections(results: Path, evidence: Evidence, provenance: Provenance) -> list[Section]:
    """The figures of ``results`` and its sheets of masks, as far as they exist.

    Raises DataError for a damaged list of sources or file of masks, a figure without its file, or one made of records
    that are gone.
    """
    sources = read_figure_sources(results / "figures")
    figures: list[Part] = []
    masks: list[Part] = []
    for name in sorted(sources, key=figure_order):
        files = [file for source in sources[name] for file in _record_files(results, source, evidence, name)]
        paths = [path for kind in _KINDS if (path := results / "figures" / f"{name}.{kind}").is_file()]
        if not paths:
            where = results / "figures" / FIGURE_SOURCES
            raise DataError(f"the figure '{name}' of '{where}' has no file; run `make figures`")
        part = _part(paths[0], name, files, provenance)
        (masks if name.split("_")[0] == _MASKS else figures).append(part)
    drawn = {source for found in sources.values() for source in found}
    for sheet in sorted((results / _MASKS).glob("*.png")):
        source = f"{_MASKS}/{sheet.stem}.json"
        if source not in drawn:
            known = (results / source).is_file()
            files = _record_files(results, source, evidence, sheet.stem) if known else []
            masks.append(_part(sheet, f"{_MASKS}_{sheet.stem}", files, provenance))
    named = [("figures", "Figures", figures), (_MASKS, "Masks", masks)]
    return [Section(name, title, _ZOOM, parts=parts) for name, title, parts in named if parts]


def figure_title(name: str) -> str:
    """The title of a figure by the name of its file: its own, or that of its family and the rest of the name."""
    family = figure_of(name, _FIGURES)
    left = name.removeprefix(family).strip("_").replace("_", " ")
    return ": ".join(text for text in (_FIGURES.get(family, ""), left) if text)


def figure_order(name: str) -> tuple[int, str]:
    """Sorts figures: those known by name first, in the order of the list."""
    return [*_FIGURES, name].index(name), name


def _record_files(results: Path, source: str, evidence: Evidence, figure: str) -> list[str]:
    """The records behind a source of a figure: the source itself, or, for a file of masks, the runs of its rows."""
    if source in evidence.records:
        return [source]
    if Path(source).parent.name != _MASKS or not (results / source).is_file():
        raise DataError(f"the figure '{figure}' was made from '{source}', which is not there; run `make figures`")
    try:
        sheet = read_json(results / source)
        runs = {(row["config_hash"], row["seed"]) for row in sheet["rows"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"file of masks '{source}' is damaged ({reason_of(error)[:120]}); draw it again") from error
    return [file for file, r in evidence.records.items() if (r["config_hash"], r["seed"]) in runs]


def _part(path: Path, name: str, files: list[str], provenance: Provenance) -> Part:
    title = figure_title(name)
    uri = f"data:{_KINDS[path.suffix[1:]]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    image = f'<button type="button" class="zoom"><img alt="{escape(title)}" src="{uri}"></button>'
    entry = provenance.of_files("made from", files)
    count = f"{len(files)} record{'s' if files[1:] else ''}"
    caption = f"Made from {button(count, entry, title)}." if files else "Made from no record."
    body = f'<figure>{image}<figcaption class="note">{caption}</figcaption></figure>'
    return Part(f"figure-{name}", title, body)
