"""`mlomae compare`: five rows that differ in the mask alone, on one's own class folders, and what is said of them."""

from pathlib import Path

import pandas as pd
import pytest
from photos import paint_classes, paint_heap
from run_samples import one_line

from benchmarks.suite.compare import LEARNED, conclusion, estimate, recipes, suite_values
from benchmarks.suite.file import load_suite
from mlomae.cli import main
from mlomae.config.schema import load_config
from mlomae.config.strict import overrides
from mlomae.config.text import config_text
from mlomae.data import Images, copies
from mlomae.data.found import look_into
from mlomae.masking import is_trainable

TINY = [
    "train.outer_iterations=2",
    "model.img_size=16",
    "model.patch_size=4",
    "data.num_workers=0",
    "data.batch_size=4",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_classes(tmp_path_factory.mktemp("photos") / "pets")


def test_the_rows_differ_in_the_mask_and_the_use_of_labels_alone(photos: Path, tmp_path: Path) -> None:
    values = recipes(look_into(photos), False, {"train.outer_iterations": 9})
    for name, content in {**values, "suite": suite_values("pets", [3, 4])}.items():
        (tmp_path / f"{name}.py").write_text(config_text(content))
    mae, learned, joint = (load_config(tmp_path / f"{name}.py") for name in ("mae", "learned", "joint"))
    assert mae.train.outer_iterations == 9
    for config in (learned, joint):
        assert vars(config.data) == vars(mae.data)
        assert (config.model, config.train, config.optim["theta"]) == (mae.model, mae.train, mae.optim["theta"])
        assert config.levels.lower_steps == mae.levels.lower_steps
    assert (is_trainable(learned.mask["type"]), is_trainable(mae.mask["type"])) == (True, False)
    assert joint.mask == mae.mask
    assert (joint.auxiliary, mae.auxiliary) == ({"type": "classification", "weight": 0.1}, None)
    suite = load_suite(tmp_path / "suite.py")
    assert (suite.seeds, suite.floor, suite.same_time) == ([3, 4], True, learned.method)
    assert {entry.task for entry in suite.tasks} == {"classification"}


def test_the_frozen_protocols_normalise_as_the_pretrainings_do(photos: Path) -> None:
    values = recipes(look_into(photos), False, {"data.augment.mean": [0.5, 0.5, 0.5]})
    assert values["mae"]["data"]["augment"]["mean"] == values["knn"]["data"]["evaluate"]["mean"] == [0.5, 0.5, 0.5]


def test_the_images_are_read_once_for_all_timings(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, digest = [], copies.digest_images

    def counting(images: Images) -> copies.Digests:
        read.append(images.split)
        return digest(images)

    monkeypatch.setattr(copies, "digest_images", counting)
    values = recipes(look_into(photos), False, overrides(TINY))
    assert estimate(values, 2, 1) > 0
    assert sorted(read) == ["held_out", "train"]


def write_results(folder: Path, low: float, high: float) -> Path:
    compared = {"task": "classification", "protocol": "knn", "method": [LEARNED, "MAE"], "mean": [50.0, 40.0]}
    compared["pretraining_cpu_s"] = [100.0, 100.0]
    pd.DataFrame(compared).to_csv(folder / "comparison.csv")
    differences = {"method": [LEARNED, "frozen"], "reference": "MAE"}
    for metric in ("knn_top1_avg", "linear_top1_avg"):
        differences |= {metric: [10.0, 1.0], f"{metric}_low": [low, 0.0], f"{metric}_high": [high, 2.0]}
    pd.DataFrame(differences).to_csv(folder / "differences.csv")
    return folder


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(1, 19, "it is better"), (-1, 21, "no difference is shown"), (-9, -1, "it is worse"), (0, 20, "no difference")],
)
def test_the_verdict_is_that_of_the_interval(low: float, high: float, word: str, tmp_path: Path) -> None:
    lines = conclusion(write_results(tmp_path, low, high))
    assert f"{LEARNED} 50.0; MAE 40.0" in lines[0]
    assert len(lines) == 4
    assert all(word in line and "minus MAE: +10.0" in line for line in lines[2:])


def test_without_an_interval_nothing_is_concluded(tmp_path: Path) -> None:
    nothing = float("nan")
    assert conclusion(write_results(tmp_path, nothing, nothing))[2].endswith("points, without an interval")


def test_a_row_of_the_same_time_that_took_another_is_not_passed_over(tmp_path: Path) -> None:
    write_results(tmp_path, 1.0, 19.0)
    rows = {"method": [LEARNED, "MAE, same processor time"], "mean": [50.0, 45.0], "pretraining_cpu_s": [400.0, 500.0]}
    pd.DataFrame({"task": "classification", "protocol": "knn", **rows}).to_csv(tmp_path / "comparison.csv")
    assert "MAE, same processor time: took 1.25 of the learned mask's time" in conclusion(tmp_path)[-1]
    differences = pd.read_csv(tmp_path / "differences.csv")
    differences["reference"] = "MAE, same processor time"
    differences.to_csv(tmp_path / "differences.csv")
    assert not any("took" in line for line in conclusion(tmp_path))


def test_what_it_would_do_is_said_first(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["compare", "--data", str(photos), "--work-dir", str(out), "--dry-run", "--cfg-options", *TINY]) == 0
    said = capsys.readouterr().out
    assert "30 images in 3 class folders" in said
    assert "time: about" in said
    assert not out.exists()


def test_bad_input_is_one_line_before_anything_is_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heap, out = paint_heap(tmp_path / "heap", 3), tmp_path / "out"
    for options, word in (
        (["--data", str(heap)], "put the images of each class into a folder"),
        (["--data", str(photos), "--seeds", "0"], "one seed"),
        (["--data", str(tmp_path / "none")], "none"),
        (["--data", str(photos), "--cfg-options", "optim.lr=1"], "optim"),
    ):
        assert main(["compare", *options, "--work-dir", str(out)]) == 2
        assert word in one_line(capsys.readouterr().err)
    assert not out.exists()
    out.mkdir()
    (out / "mae.py").write_text("# mine")
    assert main(["compare", "--data", str(photos), "--work-dir", str(out), "--cfg-options", *TINY]) == 2
    assert "of another comparison" in one_line(capsys.readouterr().err)
    assert [path.name for path in out.iterdir()] == ["mae.py"]


def test_nothing_is_concluded_from_runs_that_failed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.suite.command.run_suite", lambda *given: 1)
    monkeypatch.setattr("benchmarks.suite.compare.estimate", lambda *args: 1.0)
    out = tmp_path / "out"
    assert main(["compare", "--data", str(photos), "--work-dir", str(out), "--cfg-options", *TINY]) == 1
    assert "nothing is concluded" in capsys.readouterr().out
    assert not (out / "report.html").exists()


@pytest.mark.slow  # 28 runs
def test_the_comparison_ends_in_a_page(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["compare", "--data", str(photos), "--work-dir", str(out), "--seeds", "0", "1", "--cfg-options", *TINY]
    assert main(command) == 0
    assert "minus MAE, same processor time" in capfd.readouterr().out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Does a learned mask pay on pets?" in page
    assert "random initialisation" in page
    assert main(command) == 0, "all is on record"
    assert "28 were on record" in capfd.readouterr().out
