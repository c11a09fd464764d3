"""The page without a browser: well formed, alone, the same every time, and true to the records."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
from comparison_samples import MLO, write
from page_reader import Page
from record_samples import make_record
from report_samples import ODD, RECORDS, page_of, write_results

from benchmarks.analysis.report.__main__ import build_report, main, render_report
from benchmarks.analysis.report.tables import column_title
from benchmarks.analysis.tables.build import TABLES, read_results
from benchmarks.analysis.tables.comparison_table import columns_of, methods_of, sections
from benchmarks.analysis.tables.table import OWN
from benchmarks.analysis.tables.trace import sources_of

RUNS = Path(__file__).parents[4] / "results" / "runs"
STYLE = Path(__file__).parents[4] / "benchmarks" / "analysis" / "report" / "page.css"
EVIDENCE = read_results(RUNS)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of the shipped records, without pictures."""
    return Page(render_report(EVIDENCE, tmp_path_factory.mktemp("none")))


def expected(row: dict[Any, Any], column: str) -> list[tuple[str, list[str]]]:
    """What the entry of a cell must hold."""
    parts = sources_of(row, column)
    return [("runs of this row" if role == OWN else role, [EVIDENCE.file_of(r) for r in rs]) for role, rs in parts]


def test_it_is_well_formed_and_links_lead_somewhere(sample: str, real: Page) -> None:
    for page in (Page(sample), real):
        assert len(page.ids) == len(set(page.ids))
        links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
        assert len(links) >= len(page.tables)
        assert {link[1:] for link in links} <= set(page.ids)
        named = [value for _, name, value in page.attributes if name in ("data-filters", "aria-labelledby")]
        assert set(named) <= set(page.ids)


def test_it_needs_no_other_file(sample: str) -> None:
    for tag, name, value in Page(sample).attributes:
        if name in ("src", "href", "action", "srcset", "data", "poster", "style"):
            assert value.startswith("#" if tag == "a" else "data:image/"), (tag, name, value[:60])
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttpRequest|import\(|<link|<iframe", sample)


def test_the_same_bytes_every_time(tmp_path: Path, sample: str) -> None:
    runs = write_results(tmp_path / "again")
    assert build_report(runs, tmp_path / "a.html").read_bytes() == sample.encode()
    named = [(f"{i:03d}", record) for i, record in enumerate(RECORDS)]
    random.Random(0).shuffle(named)
    (tmp_path / "b").mkdir()
    for name, record in named:
        write(tmp_path / "b" / name, [record])
        (tmp_path / "b" / "runs").mkdir(exist_ok=True)
        (tmp_path / "b" / name / "000.json").rename(tmp_path / "b" / "runs" / f"{name}.json")
    for folder in ("figures", "masks"):
        (tmp_path / "again" / folder).rename(tmp_path / "b" / folder)
    assert build_report(tmp_path / "b" / "runs", tmp_path / "b.html").read_bytes() == sample.encode()


def test_text_of_records_is_only_text(sample: str) -> None:
    page = Page(sample)  # balanced, without comments
    assert {name: sample.count(name) for name in ("<b>", "</b>", "<!--", "</script")} == {
        "<b>": 0, "</b>": 0, "<!--": 0, "</script": 2,
    }  # fmt: skip
    firsts = [row[0].text for name in ("table-pretrain", "table-headroom") for row in page.tables[name]]
    assert firsts.count(ODD) == 2
    assert any(record[1] == ODD for record in page.data["records"])
    titles = [value for _, name, value in page.attributes if name == "data-title"]
    assert f"{ODD}: k-NN (%)" in titles


RECORDED = [name for name in TABLES if (RUNS.parent / f"{name}.csv").exists()]  # a task without records has no table


@pytest.mark.parametrize("name", [name for name in RECORDED if name != "comparison"])
def test_numbers_of_a_table_show_their_records(name: str, real: Page) -> None:
    frame, _ = TABLES[name].build(EVIDENCE)
    head, *lines = real.tables[f"table-{name}"]
    titles = [cell.text for cell in head]
    checked = 0
    for row, line in zip(frame.to_dict("records"), lines, strict=True):
        for column in frame.columns[:-1]:
            words = column_title(column, TABLES[name])
            if words not in titles:
                assert column.endswith(("_sd", "_low", "_high", "_seeds", "_verdict")), column
                continue
            cell = line[titles.index(words)]
            assert bool(cell.text) == bool(str(row[column]))
            if cell.asked:
                ((title, entry),) = cell.asked
                assert title.endswith(words)
                assert cell.value == str(row[column])
                assert real.records_of(entry) == expected(row, column)
                checked += 1
    assert checked > len(lines)


def test_numbers_of_the_comparison_show_their_records(real: Page) -> None:
    frame, _ = TABLES["comparison"].build(EVIDENCE)
    tables = [lines for name, lines in real.tables.items() if name.startswith("table-compared")]
    checked = 0
    for rows, (head, *lines) in zip(sections(frame.to_dict("records")), tables, strict=True):
        order = list(methods_of(rows))
        assert [(line[0].text, line[-1].text) for line in lines] == order
        for place, (title, by_method) in enumerate(columns_of(rows), start=5):
            assert head[place].text == title.replace("<br>", "")
            for key, line in zip(order, lines, strict=True):
                row = by_method.get(key)
                columns = ("mean", "difference", "verdict", "share_of_headroom") if row else ()
                shown = [column for column in columns if row and row[column]]
                found = [real.records_of(entry) for _, entry in line[place].asked]
                assert found == [expected(row, column) for column in shown if row]
                assert line[place].value == (row["mean"] if row else None)
                checked += len(found)
    assert checked > 100


def test_what_a_record_gives_makes_the_mean(real: Page) -> None:
    lines = real.tables["table-headroom"]
    place = [cell.text for cell in lines[0]].index("k-NN (%)")
    for line in lines[1:]:
        ((_, entry),) = line[place].asked
        ((_, runs),) = real.data["cells"][entry]
        values = [float(value) for _, value in runs]
        assert sum(values) / len(values) == pytest.approx(float(line[place].value or "nan"), abs=0.006)


def test_the_facts_of_a_record(sample: str) -> None:
    data = Page(sample).data
    facts = dict(zip(data["fields"], data["records"][3], strict=True))
    assert {key: facts[key] for key in ("record", "method", "seed", "commit", "images seen", "wall-clock (s)")} == {
        "record": "003.json", "method": MLO, "seed": "0", "commit": "a" * 12, "images seen": "1000",
        "wall-clock (s)": "30",
    }  # fmt: skip
    assert (facts["processor (s)"], facts["hardware"]) == ("20", "AMD EPYC, 1 of 2 cores")
    assert facts["config"] == RECORDS[3]["config_hash"]
    assert facts["finished"].startswith("2026-11-21T")


def test_the_order_is_that_of_the_markdown(sample: str) -> None:
    compared = next(lines for name, lines in Page(sample).tables.items() if name.startswith("table-compared-cifar10"))
    assert [line[0].text for line in compared[1:5]] == [
        "MAE",
        "MAE",
        "MAE, same processor time",
        "random initialisation",
    ]


def test_no_record_at_all(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    text = build_report(tmp_path / "runs", tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "There is no record yet" in text
    assert page.tables == {}
    assert page.data == {"fields": [], "records": [], "cells": []}


def test_refused_with_one_line_and_nothing_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "report.html"
    arguments = ["--records", str(tmp_path / "runs"), "--out", str(out)]
    assert main(arguments) == 2
    assert "records folder" in capsys.readouterr().err
    write(tmp_path / "runs", [make_record(demo=True)])
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: record '000.json' is a demo run")
    assert printed.err.count("\n") == 1
    assert not out.parent.exists()
    (tmp_path / "runs" / "000.json").unlink()
    write(tmp_path / "runs", RECORDS[:1])
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_in_both_schemes() -> None:
    """WCAG 2.1, level AA: 4.5 to 1 for text."""
    schemes = re.findall(r":root \{([^}]*)\}", STYLE.read_text(encoding="utf-8"))
    assert len(schemes) == 2
    for scheme in schemes:
        colour = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for text in ("ink", "soft", "link"):
            for ground in ("back", "raised"):
                low, high = sorted(_luminance(colour[name]) for name in (text, ground))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
