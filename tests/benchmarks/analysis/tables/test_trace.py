"""From a cell to its records: every table, every column, and what is typed wrong."""

import csv
import io
import re
from pathlib import Path

import pytest

from benchmarks.analysis.tables.build import TABLES, read_results
from benchmarks.analysis.tables.table import SOURCES
from benchmarks.analysis.tables.trace import CellError, find_cell, sources_of, trace
from mlomae.cli import main
from mlomae.common.errors import ConfigError

ROOT = Path(__file__).parents[4]
RUNS = ROOT / "results" / "runs"
NCA = "textures|500|MLO-MAE (nca)|de57a31b98ff945c|knn_top1_avg"


def listed(text: str) -> list[dict[str, str]]:
    """The lines of the records by column: two or more spaces separate them."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("role "))
    head, *rows = (re.split(r" {2,}", line) for line in lines[start:])
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_a_difference_is_of_two_methods() -> None:
    cell = "cub200|linear|MLO-MAE (nca, mask pooling)|top1_vs_mae"
    text = trace(RUNS, "classification", cell)
    name, _, shown = text.splitlines()[0].partition(" = ")
    assert name.endswith("|top1_vs_mae")
    rows = listed(text)
    own, others = ([r for r in rows if r["role"] == role] for role in ("row", "compared with"))
    assert [r["seed"] for r in own] == [r["seed"] for r in others] == ["0", "1", "2"]
    differences = [float(a["value"]) - float(b["value"]) for a, b in zip(own, others, strict=True)]
    assert sum(differences) / len(differences) == pytest.approx(float(shown), abs=0.005)
    record = rows[0]
    assert record["record"] == "linear_cub200_small_mlo-mae-nca-mask-pooling_seed0.json"
    assert record["commit"] == "22973f6bddb4"
    assert record["hardware"] == "AMD EPYC, 1 of 2 cores"
    assert record["config"] == "a0fd97469238e855"


RECORDED = {name for name in TABLES if (ROOT / "results" / f"{name}.csv").exists()}


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_is_made_of_records(name: str) -> None:
    evidence, table = read_results(RUNS), TABLES[name]
    frame, _ = table.build(evidence)
    assert len(frame) or name not in RECORDED
    for row in frame.to_dict("records"):
        cell = "|".join(str(row[key]) for key in table.keys if str(row[key]))
        assert find_cell(frame, table, f"{cell}|{frame.columns[-2]}")[0][SOURCES] is row[SOURCES]
        for column in (c for c in frame.columns if c != SOURCES):
            if row[column] and not column.startswith("published_"):
                parts = sources_of(row, column)
                assert all(evidence.file_of(r) in evidence.records for _, records in parts for r in records)
                assert any(records for _, records in parts), column


def test_the_value_of_a_record_is_the_one_that_the_cell_is_of() -> None:
    rows = csv.DictReader(io.StringIO((ROOT / "results" / "pretrain.csv").read_text(encoding="utf-8")))
    digest = "4fca35304e95ed4b"
    (row,) = (r for r in rows if r["config_hash"] == digest)
    for column in ("knn_top1_avg", "linear_top1_cls", "cpu_s", "wall_clock_s", "images_seen", "labelled_seen"):
        found = [float(r["value"]) for r in listed(trace(RUNS, "pretrain", f"{digest}|{column}"))]
        assert len(found) == 5
        assert sum(found) / 5 == pytest.approx(float(row[column]), abs=0.06)


def test_words_in_any_order_and_case() -> None:
    cells = ("textures|MAE|seeds", " mae | Textures |seeds", "MAE|500|textures|seeds")
    assert len({trace(RUNS, "headroom", cell) for cell in cells}) == 1


@pytest.mark.parametrize(
    ("cell", "message", "first"),
    [
        ("textures|MLO-MAE (nca)|knn_top1_av", "no column 'knn_top1_av'", NCA),
        ("textures|MLO-MAE nca|knn_top1_avg", "names no row", NCA),
        ("textures|knn_top1_avg", "names {of_textures} rows", None),
        ("knn_top1_avg", "names {all} rows", None),
        ("MAE", "no column 'MAE'", None),
    ],
)  # fmt: skip
def test_what_matches_nothing_lists_the_closest_first(cell: str, message: str, first: str | None) -> None:
    rows = list(csv.DictReader(io.StringIO((ROOT / "results" / "headroom.csv").read_text(encoding="utf-8"))))
    counts = {"all": len(rows), "of_textures": sum(r["dataset"] == "textures" for r in rows)}
    with pytest.raises(CellError, match=re.escape(message.format(**counts))) as error:
        trace(RUNS, "headroom", cell)
    assert "\n" not in str(error.value)
    near = error.value.near
    assert 0 < len(near) <= 20
    assert first is None or near[0] == first
    for name in near:
        trace(RUNS, "headroom", name)


def test_an_unknown_table_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no table 'heads'; choose one of pretrain, speed, .*classification"):
        trace(RUNS, "heads", "a|b")


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--records", str(RUNS)]
    assert main(["table", "headroom", *runs, "--trace", "c7462398d3575e72|knn_top1_avg"]) == 0
    assert capsys.readouterr().out.startswith("headroom.csv: textures|500|MAE|c7462398d3575e72|knn_top1_avg = 59.11\n")
    assert main(["table", "headroom", *runs, "--trace", "MAEE|knn_top1_avg"]) == 2
    printed = capsys.readouterr()
    first = printed.out.splitlines()[0]
    assert first.startswith("cifar10 on photographs, 25%|1200|MAE|")
    assert printed.err.startswith("error: 'MAEE|knn_top1_avg' names no row")
    assert printed.err.count("\n") == 1
    assert main(["table", "headroom", *runs]) == 0
    assert capsys.readouterr().out == (ROOT / "results" / "headroom.md").read_text(encoding="utf-8")
