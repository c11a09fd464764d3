"""Edited, odd and damaged records, and the files beside them: each is one line that names it, none is used."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bad_records as bad
import pytest
from record_samples import make_record
from run_samples import with_value

from benchmarks.analysis.evidence import read_figure_sources
from benchmarks.analysis.report.__main__ import build_report
from benchmarks.analysis.tables.build import build_tables
from mlomae.cli import main
from mlomae.common.errors import DataError
from mlomae.records import NUMERICS_FILE, read_named_records, seal_records, write_record

KEPT = Path(__file__).parents[1] / "results" / "runs"
WHOLE = make_record(
    curves={"iteration": [2, 4], "loss_lower": [1.5, None]},
    classes=4,
    copies={"training": {"compared": 9, "equal": 0, "near": 1}, "feedback": "unknown"},
    lowered={"batch_size": 4},
    numerics={"pretraining": 1},
    plugins={"my_masks": "0123456789abcdef"},
    pretrained={"seed": 0, "sha256": None, "clock": {"cpu": 1.5}},
    metrics={"knn_top1_avg": 40.0, "linear_top1_avg": 50.0, "phi_started": -1.0},
)


def tables_of(runs: Path) -> None:
    build_tables(runs, runs.parent / "out" / "tables")
    build_report(runs, runs.parent / "out" / "report.html")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_record(WHOLE, tmp_path / "runs" / "a.json")
    tables_of(tmp_path / "runs")
    return tmp_path / "runs"


def test_every_value_of_a_new_record_is_under_its_digest(runs: Path) -> None:
    record = json.loads((runs / "a.json").read_text())
    edits = dict(bad.leaf_edits(record))
    assert {"seed", "cpu_s", "metrics.knn_top1_avg", "finished_at", "curves.loss_lower.0", "git_dirty"} <= edits.keys()
    for field, edited in edits.items():
        (runs / "a.json").write_text(json.dumps(edited))
        with pytest.raises(DataError, match=r"^record 'a\.json'"):
            read_named_records(runs)
        if field in ("seed", "cpu_s", "metrics.knn_top1_avg", "images_seen.lower"):
            with pytest.raises(DataError, match="was edited: its digest"):
                tables_of(runs)
    text = json.dumps(record, indent=3).replace("\n", "\r\n")  # another layout, the same content
    (runs / "a.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    tables_of(runs)


@pytest.mark.parametrize(
    "task",
    [
        "pretrain",
        "classification",
        "speed",
        *(pytest.param(t, marks=pytest.mark.slow) for t in ("detection", "segmentation")),
    ],
)
def test_every_value_of_a_kept_record_is_under_the_digest_beside_it(tmp_path: Path, task: str) -> None:
    path = next(p for p in sorted(KEPT.glob("*.json")) if f'"task": "{task}"' in p.read_text())
    copy = tmp_path / "runs" / path.name
    copy.parent.mkdir()
    shutil.copy(path, copy)
    shutil.copy(KEPT.parent / NUMERICS_FILE, tmp_path)
    before = read_named_records(copy.parent)[path.name]
    for field, edited in bad.leaf_edits(json.loads(path.read_text())):
        copy.write_text(json.dumps(edited, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        with pytest.raises(DataError, match=path.name.replace(".", r"\.")):
            read_named_records(copy.parent)
        assert field
    copy.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # as an editor on Windows leaves it
    assert read_named_records(copy.parent)[path.name] == before


@pytest.mark.parametrize("seed", range(3))
def test_odd_values_are_one_line_or_harmless(runs: Path, seed: int) -> None:
    """With digests that are right, as if a program had written them."""
    for label, content in bad.bad_records(json.loads((runs / "a.json").read_text()), seed, 25):
        (runs / "a.json").write_bytes(content)
        said = bad.said_by(lambda: tables_of(runs))
        assert said is None or "'a.json'" in said, (label, said)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("wall_clock_s",), -1.0),
        (("cpu_s",), float("inf")),
        (("images_seen", "lower"), -1),
        (("images_seen", "upper"), [5]),
        (("outer_iterations",), 2**63),
        (("hardware", "cores"), "2"),
        (("metrics", "knn_top1_avg"), None),
        (("metrics", "knn_top1_avg"), "40"),
        (("metrics", "knn_top1_avg"), True),
        (("metrics", "knn_top1_avg"), float("nan")),
        (("metrics", "knn_top1_avg"), 10**70),
        (("metrics", "knn_top1_avg"), {"a": 1.0}),
        (("method",), "MLO\nMAE"),
        (("method",), "half \ud800"),
        (("config", "x"), bad.VALUES["nested"]),
        (("copies", "training"), {"equal": 1}),
        (("finished_at",), "yesterday"),
        (("git_commit",), "../../x"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(runs: Path, where: tuple[str, ...], value: Any) -> None:
    record = bad.resealed(with_value(json.loads((runs / "a.json").read_text()), where, value))
    (runs / "a.json").write_text(json.dumps(record))
    said = bad.said_by(lambda: tables_of(runs))
    assert said is not None
    assert where[-1] in said or "nested" in said


def test_what_is_no_record_is_named_and_hidden_files_are_none(runs: Path) -> None:
    for label in bad.odd_places(runs / "b.json"):
        said = bad.said_by(lambda: tables_of(runs))
        assert said is not None, label
        assert "'b.json' is not usable (it is not a file)" in said
    for name in (".ipynb_checkpoints/a-checkpoint.json", "._a.json", ".a.json.77.tmp", "__MACOSX/a.json"):
        (runs / name).parent.mkdir(exist_ok=True)
        (runs / name).write_text("{")
    tables_of(runs)


@pytest.mark.parametrize("name", bad.BESIDE)
def test_odd_files_beside_records_are_one_line(runs: Path, name: str) -> None:
    path = runs.parent / name
    use = partial(read_figure_sources, path.parent) if "sources" in name else partial(build_tables, runs, runs.parent)
    path.parent.mkdir(exist_ok=True)
    for label, content in bad.BESIDE[name].items():
        path.write_bytes(content)
        said = bad.said_by(use)
        assert said is not None, label
        assert path.name in said, (label, said)
    path.unlink()
    for label in bad.odd_places(path):
        said = bad.said_by(use)
        assert said is None or path.name in said, label


# --- mlomae records seal ----------------------------------------------------------------------------------------------


def without_digest(path: Path, **changes: Any) -> None:
    """A record as version 0.1 wrote it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**make_record(**changes)}, indent=2) + "\n")


def test_records_of_version_0_1_are_sealed_by_the_command_that_the_error_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "my runs"
    without_digest(runs / "old.json")
    write_record(make_record(seed=1), runs / "new.json")
    with pytest.raises(DataError, match=r"'old\.json' has no digest") as error:
        read_named_records(runs)
    command = str(error.value).partition("run: mlomae ")[2]
    assert command == f"records seal --records '{runs}'"
    arguments = ["records", "seal", "--records", str(runs)]
    assert main(arguments) == 0
    assert f"{tmp_path / NUMERICS_FILE}: 1 digests written: old.json; 0 of records" in capsys.readouterr().out
    assert [r["seed"] for r in read_named_records(runs).values()] == [1, 0]
    kept = (tmp_path / NUMERICS_FILE).read_bytes()
    assert main(arguments) == 0
    assert "0 digests written; 1 of records without their own were there" in capsys.readouterr().out
    assert (tmp_path / NUMERICS_FILE).read_bytes() == kept


def test_a_digest_that_is_kept_is_replaced_only_for_a_file_that_is_named(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    without_digest(runs / "a.json")
    without_digest(runs / "b.json", seed=1)
    seal_records(runs)
    kept = json.loads((tmp_path / NUMERICS_FILE).read_text())
    kept["a.json"]["numerics"] = {"pretraining": 1}
    (tmp_path / NUMERICS_FILE).write_text(json.dumps(kept))
    without_digest(runs / "a.json", cpu_s=1)
    for call in (read_named_records, seal_records):
        with pytest.raises(DataError, match=r"record 'a\.json' is not the one"):
            call(runs)
    assert json.loads((tmp_path / NUMERICS_FILE).read_text()) == kept
    assert "1 digests written: a.json" in seal_records(runs, ["a.json"])
    assert read_named_records(runs)["a.json"]["cpu_s"] == 1
    assert read_named_records(runs)["a.json"]["numerics"] == {"pretraining": 1}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda runs: (runs / "a.json").write_text("{"), "'a.json' is not usable"),
        (lambda runs: (runs.parent / NUMERICS_FILE).write_text("[1]"), "numerics.json' is damaged"),
        (lambda runs: (runs.parent / NUMERICS_FILE).mkdir(), "numerics.json' is damaged .it is not a file"),
        (lambda runs: shutil.rmtree(runs), "does not exist"),
    ],
)
def test_what_cannot_be_sealed_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    without_digest(tmp_path / "runs" / "a.json")
    spoil(tmp_path / "runs")
    with pytest.raises(DataError, match=message):
        seal_records(tmp_path / "runs")
    with pytest.raises(DataError):
        seal_records(tmp_path / "runs", ["c.json"])
