"""Figures and sheets of masks on the page: those that are there, each once, with their records."""

import base64
import json
from pathlib import Path

import pytest
from comparison_samples import PRETRAININGS, write
from page_reader import Page
from report_samples import ODD_RUN, page_of, png, write_figures, write_masks, write_results

from benchmarks.analysis.report.__main__ import main
from benchmarks.analysis.report.pictures import figure_order, figure_title


def entries(page: Page) -> dict[str, list[tuple[str, list[str]]]]:
    """Title of a dialog -> what it shows."""
    titles = [value for _, name, value in page.attributes if name == "data-title"]
    numbers = [int(value) for _, name, value in page.attributes if name == "data-p"]
    return {title: page.records_of(number) for title, number in zip(titles, numbers, strict=True)}


def pictures(page: Page) -> dict[str, bytes]:
    """Words for a picture -> its bytes."""
    words = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    data = [value.split(",", 1)[1] for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    return dict(zip(words, map(base64.b64decode, data), strict=True))


def test_each_picture_once_with_its_records(tmp_path: Path) -> None:
    page = Page(page_of(tmp_path))
    found = pictures(page)
    drawn, sheet = "What is removed from the same images: drawn", "What is removed from the same images: only sheet"
    assert list(found) == [figure_title("levels"), figure_title("cost"), drawn, sheet]
    assert found[drawn] == (tmp_path / "figures" / "masks_drawn.svg").read_bytes()
    assert found[sheet] == png()
    shown = entries(page)
    assert shown[figure_title("cost")] == [("made from", ["000.json", "004.json"])]
    assert shown[drawn] == [("made from", ["004.json"])]  # of two seeds that of the sheet
    assert shown[sheet] == [("made from", [f"{len(PRETRAININGS):03d}.json"])]
    assert figure_title("levels") not in shown
    assert {"figures", "masks"} <= set(page.ids)


def test_a_picture_in_pixels_where_there_is_no_other(tmp_path: Path) -> None:
    runs = write_results(tmp_path)
    (tmp_path / "figures" / "cost.svg").unlink()
    (tmp_path / "figures" / "cost.png").write_bytes(png())
    assert main(["--records", str(runs), "--out", str(tmp_path / "report.html")]) == 0
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert pictures(page)[figure_title("cost")] == png()


def test_titles_of_figures() -> None:
    names = ["masks_b", "zeta", "cost_linear", "cost", "levels", "masks"]
    assert sorted(names, key=figure_order) == ["levels", "cost", "cost_linear", "masks", "masks_b", "zeta"]
    assert figure_title("zeta_two") == "zeta two"
    assert figure_title("cost_linear") != figure_title("cost")


SOURCES = [
    ("{", "does not hold what `make figures` writes"),
    ("[]", "does not hold what `make figures` writes"),
    ('{"cost": "000.json"}', "does not hold what `make figures` writes"),
    ('{"cost": [1]}', "does not hold what `make figures` writes"),
    ('{"../cost": []}', "does not hold what `make figures` writes"),
    ('{"cost": ["gone.json"]}', "was made from 'gone.json', which is not there; run `make figures`"),
    ('{"cost": ["masks/gone.json"]}', "was made from 'masks/gone.json', which is not there"),
    ('{"cost": ["../masks/gone.json"]}', "which is not there"),
    ('{"bilevel": []}', "the figure 'bilevel' of"),
]


@pytest.mark.parametrize(("text", "message"), SOURCES)
def test_damaged_sources(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = write(tmp_path / "runs", PRETRAININGS[:1])
    write_figures(tmp_path, {"cost": ["000.json"]})
    (tmp_path / "figures" / "sources.json").write_text(text)
    _refused(runs, message, capsys)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"seed": 0, "rows": 3}', '{"seed": 0, "rows": [{"label": "MAE"}]}',
                                  '{"seed": [], "rows": [{"config_hash": "a"}]}'])  # fmt: skip
def test_damaged_masks(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = write(tmp_path / "runs", PRETRAININGS[:1])
    write_masks(tmp_path, "sheet", ODD_RUN)
    assert json.loads((tmp_path / "masks" / "sheet.json").read_text())["rows"]
    (tmp_path / "masks" / "sheet.json").write_text(text)
    _refused(runs, "file of masks 'masks/sheet.json' is damaged", capsys)


def _refused(runs: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs.parent / "report.html"
    out.write_text("the page before")
    assert main(["--records", str(runs), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert out.read_text() == "the page before"
    assert not list(runs.parent.glob(".*"))
