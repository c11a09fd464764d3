"""The comparison in docs/results.md: between its marks, of the transferred methods alone, checked like the tables."""

from pathlib import Path

import pytest
from comparison_samples import LONG, MLO, PRETRAININGS, TRANSFERS, pretraining, write

from benchmarks.analysis.tables.__main__ import main
from benchmarks.analysis.tables.comparison_table import BEGIN, END, filled
from mlomae.common.errors import DataError

TEXT = f"# A project\n\n{BEGIN}\n{END}\n\nThe end.\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    untransferred = pretraining("never transferred", 0, 44.0)
    write(tmp_path / "results" / "runs", [*PRETRAININGS, *TRANSFERS, untransferred])
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").write_text(TEXT, encoding="utf-8")
    return tmp_path


def tables(project: Path, *options: str) -> int:
    return main(["--records", str(project / "results" / "runs"), "--out", str(project / "results"), *options])


def test_transferred_methods_stand_between_the_marks(project: Path) -> None:
    assert tables(project) == 0
    text = (project / "docs" / "results.md").read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    shown, tail = rest.split(END)
    assert head + tail == TEXT.replace(f"{BEGIN}\n{END}", "")
    cells = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    titles, *rows = cells
    assert [row[0] for row in rows] == ["MAE", LONG, "random initialisation", MLO, "oracle"]
    values = {row[0]: dict(zip(titles, row, strict=False)) for row in rows}
    (top1,) = [title for title in titles if title.endswith("top-1")]
    assert values["MAE"][top1] == "45.00 ± 7.07 (2)"
    assert values[LONG][top1] == "53.00 (1)"
    assert values["MAE"]["cost"] == "1.0"
    assert values["random initialisation"]["cost"] == "0.0"


def test_a_page_edited_by_hand_fails_the_check(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables(project) == 0
    assert tables(project, "--check") == 0
    page = project / "docs" / "results.md"
    page.write_text(page.read_text(encoding="utf-8").replace("45.00 ±", "46.00 ±"), encoding="utf-8")
    assert tables(project, "--check") == 2
    assert "results.md' is not what the records give" in capsys.readouterr().err
    page.write_text("no marks\n", encoding="utf-8")
    assert tables(project, "--check") == 0
    assert tables(project) == 0
    assert page.read_text(encoding="utf-8") == "no marks\n"


@pytest.mark.parametrize("text", [BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_marks_that_do_not_fit_are_one_line(text: str) -> None:
    with pytest.raises(DataError, match=r"'R.md' must hold the lines") as error:
        filled(text, "a table", "R.md")
    assert "\n" not in str(error.value)
