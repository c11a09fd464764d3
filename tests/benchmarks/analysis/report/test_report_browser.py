"""The page in headless Chromium, opened as a file: sorting, filters, records behind numbers, at two widths.

Two browser starts: one for made-up results, where every button is clicked, and one for the shipped results, in frames
as wide as a desktop and a phone (windows cannot be that narrow).
"""

import html
import json
import math
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from comparison_samples import MLO
from page_reader import Page
from report_samples import ODD, RECORDS, page_of

from benchmarks.analysis.report.__main__ import build_report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH (Debian: apt install chromium)")
SCRIPT = (Path(__file__).parent / "in_browser.js").read_text(encoding="utf-8")
RUNS = Path(__file__).parents[4] / "results" / "runs"
PATIENCE = 280  # seconds: a start takes two, on a busy machine a hundred times as long
WIDTHS = {"desktop": 1280, "phone": 390}
CATCH = "window.errors = []; window.onerror = (m) => { window.errors.push(String(m)); };"


def with_script(page: str, framed: str = "") -> str:
    """The page with the test script at its end, which reports its findings; ``framed``: under which name."""
    head = f"<head><script>{CATCH} window.framed = {json.dumps(framed)};</script>"
    return page.replace("<head>", head, 1).replace("</body>", f"<script>{SCRIPT}</script></body>")


def dom_of(path: Path, profile: Path) -> str:
    """The page at ``path`` after its scripts have run."""
    assert CHROMIUM is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--window-size=1280,900"]
    options += ["--virtual-time-budget=20000", f"--user-data-dir={profile}", "--no-first-run", "--disable-extensions"]
    command = [CHROMIUM, *options, path.as_uri()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", start_new_session=True
    ) as process:
        try:
            return str(process.communicate(timeout=PATIENCE)[0])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its helpers too, which hold the pipe open
            raise


def findings(dom: str, element: str = "findings") -> Any:
    found = re.search(f'<pre id="{element}">(.*?)</pre>', dom, re.DOTALL)
    assert found, f"the page did not report; it is called {re.findall('<title>(.*?)</title>', dom)}"
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def tried(sample: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("chromium")
    (folder / "report.html").write_text(with_script(sample), encoding="utf-8")
    found: dict[str, Any] = findings(dom_of(folder / "report.html", folder / "profile"))
    return found


@pytest.fixture(scope="module")
def framed(sample: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The kept results and the made-up ones at each of `WIDTHS`."""
    folder = tmp_path_factory.mktemp("frames")
    kept = build_report(RUNS, folder / "kept.html").read_text(encoding="utf-8")
    frames = ""
    for width in WIDTHS:
        for name, page in (("kept", kept), ("sample", sample)):
            (folder / f"{name}-{width}.html").write_text(with_script(page, f"{name} {width}"), encoding="utf-8")
            frames += (
                f'<iframe src="{name}-{width}.html" style="border:0;width:{WIDTHS[width]}px;height:700px"></iframe>'
            )
    listen = (
        'const found = {}; addEventListener("message", ({data: [name, text]}) => { found[name] = JSON.parse(text);'
        'document.getElementById("findings").textContent = JSON.stringify(found); });'
    )
    top = f'<!DOCTYPE html><meta charset="utf-8"><pre id="findings">{{}}</pre><script>{listen}</script>{frames}'
    (folder / "top.html").write_text(top, encoding="utf-8")
    found: dict[str, Any] = findings(dom_of(folder / "top.html", folder / "profile"))
    return found


def key(text: str) -> list[tuple[float, str]]:
    """Sorts cells as a reader expects: numbers as numbers, those within words too."""
    try:
        return [(-math.inf, ""), (float(text), "")]
    except ValueError:
        return [(float(part), "") if part.isdecimal() else (math.inf, part.casefold()) for part in split(text)]


def split(text: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", text) if part]


def test_no_errors_and_no_scrolling_sideways(tried: dict[str, Any], framed: dict[str, Any]) -> None:
    assert sorted(framed) == sorted(f"{name} {width}" for name in ("kept", "sample") for width in WIDTHS)
    for found in (tried, *framed.values()):
        assert found["errors"] == []
        assert found["scroll"] <= found["width"]
        assert found["scrollAfter"] <= found["width"]
    for width, pixels in WIDTHS.items():
        assert pixels - 20 <= framed[f"kept {width}"]["width"] <= pixels


def test_tables_scroll_in_boxes_of_their_own(framed: dict[str, Any]) -> None:
    for found in framed.values():
        assert found["boxes"]
        for box in found["boxes"]:
            assert box["inside"]
            assert box["head"] <= 2  # pixels, of a rim
            assert box["side"] <= 2
            assert box["end"] <= 2  # the last column can be reached
    assert any(box["wider"] and box["taller"] for box in framed["kept phone"]["boxes"])
    assert any(box["wider"] and box["taller"] for box in framed["kept desktop"]["boxes"])


def test_pictures_fit_and_open_in_full_size(tried: dict[str, Any], framed: dict[str, Any]) -> None:
    for found in (tried, framed["sample phone"], framed["sample desktop"]):
        assert found["pictures"] == [[True] * 5] * 4


def test_columns_sort_both_ways(tried: dict[str, Any]) -> None:
    gaps = ties = 0
    for name, entry in tried["sorted"].items():
        assert entry["focused"], name
        before = list(zip(*entry["before"], strict=True))
        for way, backwards in (("ascending", False), ("descending", True)):
            filled = sorted((line for line in before if line[1]), key=lambda line: key(line[1]), reverse=backwards)
            wanted = filled + [line for line in before if not line[1]]
            assert list(zip(*entry[way], strict=True)) == wanted, (name, way)
            assert entry[f"{way} said"] == [way, 1]
            gaps, ties = gaps + (len(filled) < len(before)), ties + (len({v for _, v in filled}) < len(filled))
            before = wanted
    assert gaps > 10
    assert ties > 10
    columns = [entry["ascending"][1] for entry in tried["sorted"].values()]
    numbers = [column for column in columns if all(len(key(text)) == 2 and key(text)[0][0] < 0 for text in column)]
    assert any(column != sorted(column) for column in numbers)  # as words they would be in another order


def test_the_filter_keeps_rows_with_all_words(tried: dict[str, Any]) -> None:
    (some, said), (none, nothing), (everything, total) = tried["filtered"]
    assert some == [MLO]
    assert none == []
    assert sorted(set(everything)) == sorted({r["method"] for r in RECORDS if r["task"] == "pretrain"})
    count = len(everything)
    assert [said, nothing, total] == [f"1 of {count} rows", f"0 of {count} rows", f"{count} rows"]


def test_a_number_shows_its_records(tried: dict[str, Any], sample: str) -> None:
    page = Page(sample)
    asked = [int(value) for _, name, value in page.attributes if name == "data-p"]
    assert sorted(dialog["entry"] for dialog in tried["dialogs"]) == sorted(asked)
    for dialog in tried["dialogs"]:
        assert dialog["open"]
        assert dialog["closed"]
        assert dialog["inside"]
        parts = page.data["cells"][dialog["entry"]]
        counts = [f"{role} ({len(runs)} records)" if len(runs) > 1 else role for role, runs in parts]
        assert dialog["roles"] == counts
        for (_, runs), (head, *rows) in zip(parts, dialog["rows"], strict=True):
            valued = any(value for _, value in runs)
            assert head == ["record", *(["gives"] if valued else []), *page.data["fields"][1:]]
            for (run, value), row in zip(runs, rows, strict=True):
                first, *others = page.data["records"][run]
                assert row == [first, *([value] if valued else []), *others]
    titles = [dialog["title"] for dialog in tried["dialogs"]]
    assert f"{ODD}: k-NN (%): 61.00" in titles
    assert f"{MLO}: k-NN (%): 75.00 ± 4.36" in titles
