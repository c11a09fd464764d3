"""A trained segmenter on new images, and its checkpoint evaluated again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import seg_runs
import torch
from PIL import Image
from run_samples import differences
from seg_runs import run_transfer

from mlomae import cli
from mlomae.backbones.load import load_transfer


@pytest.fixture(scope="module")
def trained(one_thread: None, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("trained") / "run"
    run_transfer(seg_runs.config(scenes), work)
    return work


def test_new_images_get_the_masks_that_the_evaluation_has_kept(trained: Path, scenes: Path, tmp_path: Path, capsys):
    images = sorted((scenes / "images" / "validation").iterdir())
    assert cli.main(["predict", str(trained), str(images[0].parent), "--out", str(tmp_path / "new")]) == 0
    assert "masks and pictures of 10 images" in capsys.readouterr().out
    for image in images:
        mask = np.array(Image.open(tmp_path / "new" / "masks" / f"{image.stem}.png"))
        assert np.array_equal(mask, np.array(Image.open(trained / "predictions" / f"{image.stem}.png")))
        assert Image.open(tmp_path / "new" / "pictures" / f"{image.stem}.png").width > 500
    other = np.array(Image.open(trained / "predictions" / f"{images[1].stem}.png"))  # mutation: of another image
    assert not np.array_equal(np.array(Image.open(tmp_path / "new" / "masks" / f"{images[0].stem}.png")), other)
    table = pd.read_csv(tmp_path / "new" / "masks.csv")
    assert table["file"].tolist() == [str(image) for image in images]
    assert (tmp_path / "new" / "classes.txt").read_text().splitlines() == (scenes / "classes.txt").read_text().split()


def test_two_images_of_one_name_are_both_written(trained: Path, scenes: Path, tmp_path: Path) -> None:
    first, second = sorted((scenes / "images" / "validation").iterdir())[:2]
    for folder, image in (("a", first), ("b", second)):
        (tmp_path / folder).mkdir()
        shutil.copy(image, tmp_path / folder / "x.png")
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert cli.main(["predict", str(trained / "checkpoints" / "iter_6.pth"), *files, "--out", str(tmp_path / "n")]) == 0
    assert sorted(path.name for path in (tmp_path / "n" / "masks").iterdir()) == ["x.png", "x_2.png"]


def test_mmseg_alone_predicts_the_same(trained: Path, scenes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "segmenter"
    assert cli.main(["export", str(trained), str(out), "--format", "mmseg"]) == 0
    assert f'init_model("{out / "config.py"}"' in capsys.readouterr().out
    from mmseg.apis import inference_model, init_model

    model = init_model(str(out / "config.py"), str(out / "weights.pth"), device="cpu")
    assert list(model.dataset_meta["classes"]) == (scenes / "classes.txt").read_text().split()
    images = sorted((scenes / "images" / "validation").iterdir())
    kept = [np.array(Image.open(trained / "predictions" / f"{image.stem}.png")) for image in images]
    found = [inference_model(model, str(image)).pred_sem_seg.data[0].numpy() + 1 for image in images]
    assert all(np.array_equal(a, b) for a, b in zip(found, kept, strict=True))
    assert not all(np.array_equal(a, kept[1]) for a in found)  # mutation
    (out / "notes.txt").write_text("mine")
    assert cli.main(["export", str(trained), str(out), "--format", "mmseg"]) == 2
    assert "holds other things" in capsys.readouterr().err


def test_evaluate_gives_the_metrics_of_the_record(trained: Path, capsys) -> None:
    metrics = json.loads((trained / "record.json").read_text())["metrics"]
    assert cli.main(["evaluate", str(trained)]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert float(printed["mIoU"]) == pytest.approx(metrics["mIoU"], rel=1e-3)
    assert cli.main(["evaluate", str(trained), "--data", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_model_whose_backbone_is_gone_is_whole(scenes: Path, tmp_path: Path) -> None:
    """The checkpoint of a whole segmenter needs no other file."""
    torch.manual_seed(0)
    run_transfer(seg_runs.config(scenes, train__iterations=2), tmp_path / "first")
    loaded = load_transfer(tmp_path / "first")
    loaded.config.backbone.weights = str(tmp_path / "gone.pth")
    own = loaded.state["modules"]["segmentor"]
    assert all(torch.equal(value.cpu(), own[key]) for key, value in loaded.build_model().state_dict().items())


def test_evaluating_on_the_way_ends_with_the_same_weights(trained: Path, scenes: Path, tmp_path: Path) -> None:
    record = run_transfer(seg_runs.config(scenes, train__eval_interval=3), tmp_path)
    rows = json.loads((tmp_path / "validation.json").read_text())["rows"]
    assert [row["step"] for row in rows] == [3, 6]
    assert rows[-1]["value"] == record["metrics"]["mIoU"]
    ours, theirs = (load_transfer(work).state["modules"] for work in (tmp_path, trained))
    assert differences(ours, theirs) == []


@pytest.mark.parametrize(("arguments", "said"), [([], "--out FOLDER"), (["--out", "x.csv"], "--out FOLDER")])
def test_a_folder_must_be_named(trained: Path, scenes: Path, capsys, arguments: list[str], said: str) -> None:
    assert cli.main(["predict", str(trained), str(scenes), *arguments]) == 2
    assert said in capsys.readouterr().err
