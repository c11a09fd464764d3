"""``mlomae diagnose`` from the command line, on tiny runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from mlomae.cli import main
from mlomae.common.checkpoint import list_checkpoints
from mlomae.data import build_source
from mlomae.diagnostics.diagnose import diagnose, load_for_diagnosis
from mlomae.masking.sampling import object_patches
from mlomae.pretraining import health
from mlomae.pretraining import run as pretrain
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.influence import model_influence
from mlomae.pretraining.run import run_pretraining

LEVELS = ("lower", "head", "upper")
SMALL = ("--batches", "3", "--batch-size", "16")


def run(capsys: pytest.CaptureFixture[str], checkpoint: Path, out: Path, *more: str) -> tuple[dict[str, Any], str]:
    """The JSON that the command wrote, and what it printed."""
    capsys.readouterr()
    assert main(["diagnose", str(checkpoint), "--out", str(out), *SMALL, *more]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert sorted(path.name for path in out.iterdir()) == ["diagnose.json", "influence.png"], "nothing temporary"
    return json.loads((out / "diagnose.json").read_text()), printed.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["diagnose", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_learned_mask(linear_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, printed = run(capsys, linear_checkpoint, tmp_path)
    assert (found["iteration"], found["feedback"], found["mask_type"], found["mask"]) == (4, "linear", "learned", "own")
    assert found["feedback_chance"] == 25.0
    assert 0 <= found["feedback_accuracy"]["mean"] <= 100
    assert found["sigma"].keys() == {"mean", "entropy", "saturated", "var_images", "var_positions"}
    assert -1 <= found["mask_overlap"]["mean"] < 1, "another noise, another mask"
    for name in ("influence_gap", "influence_auroc", "sigma_auroc"):
        assert found["objects"][name]["batches"] == 3
        assert np.isfinite(found["objects"][name]["t"])
    for words in ("iteration 4", "chance 25.0", "influence t", "over 3 batches", "sigma AUROC", "influence.png"):
        assert words in printed
    with Image.open(tmp_path / "influence.png") as picture:
        assert picture.width >= 8 * 96
        assert picture.height >= 4 * 96


def test_masks_without_a_head_use_soft_neighbours(
    mae_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, printed = run(capsys, mae_checkpoint, tmp_path / "default")
    assert (found["feedback"], found["sigma"]) == ("nca", None)
    assert found["objects"]["sigma_auroc"] is None
    assert "sigma                none" in printed
    named, _ = run(capsys, mae_checkpoint, tmp_path / "named", "--feedback", "nca")
    assert named == found
    ridge, _ = run(capsys, mae_checkpoint, tmp_path / "ridge", "--feedback", "ridge")
    assert ridge["feedback"] == "ridge"
    assert ridge["loss_upper"] != found["loss_upper"]


def test_another_feedback_and_random_masks_on_a_learned_run(
    linear_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, _ = run(capsys, linear_checkpoint, tmp_path / "own", "--feedback", "nca")
    random, printed = run(capsys, linear_checkpoint, tmp_path / "random", "--feedback", "nca", "--mask", "random")
    assert own["loss_upper"] == random["loss_upper"], "masks do not enter the feedback"
    assert own["sigma"] == random["sigma"]
    assert own["influence"] != random["influence"]
    assert "masks drawn at random" in printed


def test_two_runs_write_the_same_bytes(
    linear_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        torch.manual_seed(len(name))
        run(capsys, linear_checkpoint, tmp_path / name)
    for file in ("diagnose.json", "influence.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_files_go_into_the_run_by_default(tmp_path: Path) -> None:
    run_pretraining(tiny.config(name="default_out", data__eval=None, train__outer_iterations=2), tmp_path)
    checkpoint = list_checkpoints(tmp_path)[-1]
    assert main(["diagnose", str(checkpoint), *SMALL]) == 0
    assert (tmp_path / "diagnose" / "diagnose.json").is_file()
    moved = checkpoint.rename(tmp_path / "alone.pth")
    (tmp_path / "diagnose").rename(tmp_path / "before")
    assert main(["diagnose", str(moved), *SMALL]) == 0
    assert (tmp_path / "diagnose" / "influence.png").is_file()


def test_evaluation_images_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_pretraining(tiny.config(name="with_eval", train__outer_iterations=2), tmp_path)
    opened: list[Any] = []
    for name in ("build_source", "build_training_source"):
        monkeypatch.setattr(pretrain, name, lambda cfg: opened.append(cfg) or build_source(cfg))
    diagnose(list_checkpoints(tmp_path)[-1], batches=1, batch_size=8)
    assert [cfg["split"] for cfg in opened] == ["train"]


def test_numbers_are_those_of_the_batches(linear_checkpoint: Path, tmp_path: Path) -> None:
    """The pipeline once more by hand, from the streams on; upper images are those that no head was trained on."""
    found, _ = diagnose(linear_checkpoint, batches=2, batch_size=16, out=tmp_path)
    loaded = load_for_diagnosis(linear_checkpoint, None)
    streams = {level: loaded.stream(level, f"diagnose/{level}") for level in LEVELS}
    assert set(streams["upper"].indices.tolist()) == set(loaded.data.split.val_indices.tolist())
    assert set(streams["head"].indices.tolist()) == set(loaded.data.split.train_indices.tolist())
    model = loaded.build_model(tiny.CLASSES)
    device = next(model.parameters()).device
    areas, accuracies = [], []
    for start in (0, 16):
        lower, head, upper = (to_device(streams[level].batch(start, 16), device) for level in LEVELS)
        influence, mask, _ = model_influence(model, lower, head, upper)
        objects = object_patches(lower["object"], (4, 4))
        areas.append(roc_auc_score(objects[mask > 0].cpu(), influence[mask > 0].cpu()))
        scores = health.feedback_scores(model, head, upper)
        accuracies.append(100.0 * float((scores.argmax(dim=1) == upper["label"]).double().mean()))
    assert found["objects"]["influence_auroc"]["mean"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert found["objects"]["influence_auroc"]["sd"] == pytest.approx(np.std(areas, ddof=1), abs=1e-12)
    assert found["feedback_accuracy"]["mean"] == pytest.approx(np.mean(accuracies), abs=1e-5)


def test_one_batch_has_no_t(linear_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, printed = run(capsys, linear_checkpoint, tmp_path, "--batches", "1")
    assert found["objects"]["influence_gap"]["t"] is None
    assert "undefined over 1 batch" in printed


def write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        folder = root / "train" / label
        folder.mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def test_data_without_objects_under_another_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data")
    source = {"type": "imagefolder", "root": str(tmp_path / "data"), "split": "train"}
    config = tiny.config(name="folders", data__train=source, data__eval=None, train__outer_iterations=2)
    run_pretraining(config, tmp_path / "work")
    checkpoint = list_checkpoints(tmp_path / "work")[-1]
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert "--data" not in refused(capsys, checkpoint, "--batch-size", "8")
    more = ("--data", str(tmp_path / "elsewhere"), "--batch-size", "8")
    found, printed = run(capsys, checkpoint, tmp_path / "out", *more)
    assert found["objects"] is None
    assert "no masks or boxes of objects" in printed
    assert found["influence"]["sd"] > 0
    assert str(tmp_path) not in (tmp_path / "out" / "diagnose.json").read_text()


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batches", "0"), ["--batches must be at least 1; got 0"]),
        (("--feedback", "svm"), ["unknown feedback 'svm'", "linear, nca, ridge"]),
        (("--mask", "none"), ["--mask must be one of own, random; got 'none'"]),
        (("--batch-size", "0"), ["--batch-size (the smallest level has 20 images) must be inside [1, 20]; got 0"]),
        ((), ["--batch-size", "must be inside [1, 20]; got 256"]),
        (("--data", "nowhere"), ["'textures'", "'root'"]),
    ],
)
def test_wrong_options(
    arguments: tuple[str, ...], words: list[str], linear_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, linear_checkpoint, *arguments)
    for word in words:
        assert word in line


def test_a_head_that_nobody_trained(mae_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, mae_checkpoint, "--feedback", "linear", "--out", tmp_path / "out")
    assert "feedback 'linear' has a head, which" in line
    assert "has not trained; use --feedback nca or ridge" in line
    assert not (tmp_path / "out").exists()


def test_not_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in refused(capsys, tmp_path / "gone.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    assert "damaged or holds code" in refused(capsys, tmp_path / "text.pth")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pth")
    assert "not a training checkpoint" in refused(capsys, tmp_path / "other.pth")
