"""`make figures`: the same bytes every time, what it refuses, what it skips, what it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from figure_samples import inputs, mask_values, run, write_masks
from PIL import Image

from benchmarks.analysis.figures import __main__ as build
from benchmarks.analysis.figures.__main__ import main
from benchmarks.analysis.figures.runs import NothingToDrawError
from benchmarks.suite.file import ROOT
from mlomae.records import record_digest, write_record

RUNS = [run(m, s, 48.0 + s) for m in ("MAE", "BLO-MAE", "MLO-MAE") for s in (0, 1)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for i, record in enumerate(RUNS):
        write_record(record, tmp_path / "runs" / f"{i}.json")
    return tmp_path


def figures(place: Path, *options: str) -> int:
    folders = ["--records", str(place / "runs"), "--masks", str(place / "masks"), "--out", str(place / "out")]
    return main([*folders, *options])


def refused(place: Path, words: str, capsys: pytest.CaptureFixture[str], *options: str) -> None:
    """One line on standard error, status 2, nothing written."""
    capsys.readouterr()
    assert figures(place, *options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]


def test_files_sources_and_skipped_figures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_masks(place / "masks" / "x.json", rows=1, count=2)
    before = dict(matplotlib.rcParams)
    assert figures(place) == 0
    assert dict(matplotlib.rcParams) == before, "no global state"
    output = capsys.readouterr().out.splitlines()
    skipped = [line.split(":")[0] for line in output if ": skipped, " in line]
    assert skipped == ["mask_ratio", "loss_curves", "forest", "map", "tuning"]
    assert "run" in next(line for line in output if line.startswith("loss_curves"))
    sources = json.loads((place / "out" / "sources.json").read_text())
    everything = [f"{i}.json" for i in range(len(RUNS))]
    assert sources == {
        "levels": [],
        "bilevel": everything,
        "masks": ["masks/x.json"],
        "cost": everything,
        "cost_linear": everything,
    }
    written = {f"{name}.{kind}" for name in sources for kind in ("png", "svg")} | {"sources.json"}
    assert {path.name for path in (place / "out").iterdir()} == written
    with Image.open(place / "out" / "levels.png") as picture:
        assert picture.width == 1080
        assert round(picture.info["dpi"][0]) == 150
    svg = (place / "out" / "cost.svg").read_text()
    assert "dc:date" not in svg
    assert str(place) not in svg


def test_bytes_are_the_same_when_drawn_twice_and_of_records_in_another_order(place: Path) -> None:
    def drawn(records: list[dict[str, Any]], name: str) -> dict[str, bytes]:
        with build.look():
            return build.rendered(build.FIGURES[name](inputs(records))[0].figure)

    assert drawn(RUNS, "cost") == drawn(RUNS[::-1], "cost")
    one, other = drawn(RUNS, "bilevel"), drawn([*RUNS[1:], run("MAE", 0, 45.0)], "bilevel")
    assert one["png"] != other["png"]
    assert one["svg"] != other["svg"]


def test_bytes_do_not_depend_on_the_last_bits_of_the_layout() -> None:
    """Those of the solver differ from process to process."""

    def drawn(nudge: float) -> dict[str, bytes]:
        with build.look():
            figure = build.FIGURES["bilevel"](inputs(RUNS))[0].figure
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for ax in figure.axes:
                x, y, width, height = ax.get_position().bounds
                ax.set_position((x, y + nudge, width, height))
            return build.rendered(figure)

    assert drawn(1e-15) == drawn(0.0)
    assert drawn(1e-3) != drawn(0.0), "too blunt"


@pytest.mark.slow
def test_bytes_are_the_same_in_another_process(place: Path) -> None:
    write_masks(place / "masks" / "x.json", rows=2)
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "benchmarks.analysis.figures", "--out", str(place / seed)]
        folders = ["--records", str(place / "runs"), "--masks", str(place / "masks")]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([*command, *folders], cwd=ROOT, env=environment, check=True)
    first, again = ({path.name: path.read_bytes() for path in (place / seed).iterdir()} for seed in ("1", "2"))
    assert first == again


def test_one_figure_alone_leaves_the_others(place: Path) -> None:
    assert figures(place, "--only", "levels") == 0
    assert figures(place, "--only", "bilevel") == 0
    files = {path.name for path in (place / "out").iterdir()}
    assert files == {"levels.png", "levels.svg", "bilevel.png", "bilevel.svg", "sources.json"}
    assert set(json.loads((place / "out" / "sources.json").read_text())) == {"levels", "bilevel"}


def test_a_figure_whose_records_are_gone_is_removed_and_nothing_else_is(place: Path) -> None:
    assert figures(place, "--only", "bilevel") == 0
    (place / "out" / "mine.png").write_bytes(b"a picture")
    for path in (place / "runs").iterdir():
        path.unlink()
    assert figures(place, "--only", "bilevel") == 0
    assert {path.name for path in (place / "out").iterdir()} == {"mine.png", "sources.json"}
    assert json.loads((place / "out" / "sources.json").read_text()) == {}


def test_without_records_every_figure_of_records_says_what_is_missing() -> None:
    for name, draw in build.FIGURES.items():
        if name != "levels":
            with pytest.raises(NothingToDrawError, match=r"run|`mlomae masks") as error:
                draw(inputs([]))
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (run("MAE", 7, demo=True), "is a demo run"),
        (run("MAE", 0, 40.0), "two records hold seed 0 of MAE"),
        ({**run("MAE", 7), "seed": "7"}, "field 'seed' has the wrong type"),
        ({**run("MAE", 7), "config_hash": "0" * 16}, "config_hash does not belong"),
        (run("MAE", 7, curves=[1, 2]), "'curves' must hold lists"),
        (run("MAE", 7, curves={"iteration": [2, 1]}), "must hold increasing integers"),
        (
            run("MAE", 7, curves={"iteration": [1, 2], "loss_upper": [0.5]}),
            "must hold lists as long as its 'iteration'",
        ),
        (run("MAE", 7, curves={"iteration": [1], "loss_lower": ["low"]}), "holds 'low', not a number"),
    ],
)
def test_wrong_records_are_one_line(
    bad: dict[str, Any], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "runs" / "bad.json").write_text(json.dumps({**bad, "digest": record_digest(bad)}))
    refused(place, words, capsys, "--only", "loss_curves" if "curves" in bad else "cost")
    assert not (place / "out").exists()


def test_wrong_arguments_and_a_damaged_list_of_sources_are_one_line(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(place, "no figure is called 'pie'; there are levels, bilevel", capsys, "--only", "pie")
    refused(place, "does not exist", capsys, "--records", str(place / "nowhere"))
    (place / "runs" / "no.json").write_text("{")
    refused(place, "record 'no.json' is not usable", capsys)
    (place / "runs" / "no.json").unlink()
    for content in ("{", "[]", '{"../x": []}', '{"cost": 1}'):
        (place / "out").mkdir(exist_ok=True)
        (place / "out" / "sources.json").write_text(content)
        refused(place, "sources.json", capsys, "--only", "levels")


ROW = mask_values(rows=1)["rows"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": ["no base64"]}, "is damaged"),
        ({"images": ["aGVsbG8="]}, "is damaged"),
        ({"images": []}, "is damaged"),
        ({"rows": []}, "'rows' is empty"),
        ({"seed": "0"}, "'seed' not an integer"),
        ({"rows": [{**ROW, "grid": [5, 5]}]}, "does not divide images of 32 pixels"),
        ({"rows": [{**ROW, "grid": [0, 8]}]}, "does not divide"),
        ({"rows": [{**ROW, "mask": ROW["mask"][:-1]}]}, "'mask' is not 8 texts of 64"),
        ({"rows": [{**ROW, "mask": ["2" * 64] * 8}]}, "'mask' is not 8 texts of 64"),
        ({"rows": [{**ROW, "weight": [[1.0] * 64] * 7}]}, "'weight' is not 8 lists of 64"),
        ({"rows": [{**ROW, "weight": [[float("nan")] * 64] * 8}]}, "holds nan, not a number"),
        ({"rows": [{**ROW, "label": " "}]}, "no label"),
        ({"rows": [{**ROW, "iteration": -1}]}, "'iteration' is not a count"),
        ({"rows": [{k: v for k, v in ROW.items() if k != "grid"}]}, "lacks 'grid'"),
    ],
)
def test_wrong_files_of_masks_are_one_line(
    changes: dict[str, Any], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_masks(place / "masks" / "m.json", rows=1)
    path.write_text(json.dumps({**mask_values(rows=1), **changes}))
    refused(place, words, capsys, "--only", "masks")
    assert not (place / "out").exists()
