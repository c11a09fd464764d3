"""``mlomae masks``: what is grey, which model draws, on which images; and what it refuses."""

import base64
import io
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

from mlomae.cli import main
from mlomae.common import random_keys
from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.config.schema import config_from_dict, load_config
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.diagnostics import masks
from mlomae.diagnostics.diagnose import diagnose
from mlomae.diagnostics.masks import draw_masks
from mlomae.diagnostics.pictures import LEAST, MOST, REMOVED, mask_sheet
from mlomae.masking import Mask, MaskState
from mlomae.masking import base as registry
from mlomae.masking.strategies.random import RandomMasking
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import run_pretraining
from mlomae.records import config_hash

Row = tuple[str, Tensor, Tensor, tuple[int, int]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the sheet was given, instead of a figure."""
    seen: dict[str, Any] = {}

    def keep(images: Tensor, rows: list[Row], **more: Any) -> None:
        seen.update(images=images, rows=rows, **more)

    monkeypatch.setattr(masks, "mask_sheet", keep)
    monkeypatch.setattr(masks, "save_figure", lambda figure, path: None)
    return seen


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tiny.write_config(tmp_path / "mae.py", **tiny.RANDOM, name="mae")


def folder(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Pictures of (height, width), image i of the grey 40 i."""
    root.mkdir()
    for i, size in enumerate(sizes):
        Image.fromarray(np.full((*size, 3), 40 * i, dtype=np.uint8)).save(root / f"{i}.png")
    (root / "notes.txt").write_text("no picture")
    return root


# --- the sheet ----------------------------------------------------------------------------------------------------


def test_removed_patches_are_grey_and_kept_ones_are_the_image() -> None:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    weight = torch.tensor([[1.0, 9.0, 9.0, 3.0], [0.0, 2.0, 3.0, 3.0]])  # those of kept patches count for nothing
    rows: list[Row] = [("equal", mask, torch.ones(2, 4), (2, 2)), ("weighed", mask, weight, (2, 2))]
    figure = mask_sheet((pixels - mean) / std, rows)
    *tiles, bar = figure.axes
    shown = np.array([ax.images[0].get_array() for ax in tiles]).reshape(3, 2, 8, 8, 3)
    image = pixels.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(shown[0], image, atol=1e-6)
    np.testing.assert_allclose(shown[1, 0, :4, 4:], image[0, :4, 4:], atol=1e-6)
    np.testing.assert_allclose(shown[1, 0, 4:, :4], image[0, 4:, :4], atol=1e-6)
    for place in (shown[1, 0, :4, :4], shown[1, 0, 4:, 4:], shown[1, 1, :4, 4:]):
        assert (place == REMOVED).all()
    assert np.allclose(shown[2, 0, :4, :4], LEAST)
    assert np.allclose(shown[2, 0, 4:, 4:], MOST)
    assert np.allclose(shown[2, 1, :4, 4:], (LEAST + MOST) / 2)
    assert [ax.get_ylabel() for ax in tiles[::2]] == ["image", "equal", "weighed"]
    assert (bar.get_ylabel(), bar.get_ylim()) == ("weight in the loss", (1, 3))


def test_objects_are_outlined_in_every_row() -> None:
    objects = torch.zeros(2, 8, 8, dtype=torch.bool)
    objects[0, 2:6, 2:6] = True
    rows: list[Row] = [("equal", torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 1]]), torch.ones(2, 4), (2, 2))]
    figure = mask_sheet(torch.zeros(2, 3, 8, 8), rows, object_BSS=objects)
    assert [len(ax.collections) for ax in figure.axes] == [1, 0, 1, 0]
    assert not any(ax.collections for ax in mask_sheet(torch.zeros(2, 3, 8, 8), rows).axes)


# --- rows ---------------------------------------------------------------------------------------------------------


def test_a_picture_of_two_strategies_is_a_function_of_the_seed(config: Path, tmp_path: Path) -> None:
    learned = tiny.write_config(tmp_path / "learned.py", name="learned", method="MLO-MAE (a method of a long name)")
    files = []
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        out = tmp_path / name / "masks.png"
        options = ["--count", "3", "--draws", "2", "--seed", str(seed)]
        assert main(["masks", str(config), str(learned), "--out", str(out), *options]) == 0
        assert sorted(path.name for path in out.parent.iterdir()) == ["masks.json", "masks.png"]
        files.append(out.read_bytes())
    assert files[0] == files[1] != files[2]
    with Image.open(tmp_path / "a" / "masks.png") as picture:
        assert picture.width >= 3 * 130
        assert picture.height >= 5 * 130, "the images, and two draws of each strategy"


def test_the_numbers_beside_the_picture_are_what_it_shows(config: Path, drawn: dict[str, Any], tmp_path: Path) -> None:
    learned = tiny.write_config(tmp_path / "learned.py", name="learned", seed=3)
    draw_masks([config, learned], [], tmp_path / "x.png", count=3, seed=5)
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["source"], found["seed"], len(found["images"])) == ("textures train", 5, 3)
    for text, image in zip(found["images"], pixels(drawn["images"]), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image.permute(1, 2, 0).numpy())
    for row, (label, mask, weight, grid) in zip(found["rows"], drawn["rows"], strict=True):
        assert (row["label"], tuple(row["grid"]), row["iteration"]) == (label, grid, 0)
        assert torch.equal(torch.tensor([[float(c) for c in text] for text in row["mask"]]), mask)
        if row["weight"] is not None:
            torch.testing.assert_close(torch.tensor(row["weight"]), weight, rtol=1e-3, atol=0)
    plain, weighted = found["rows"]
    assert plain["weight"] is None
    assert weighted["weight"] is not None
    assert (weighted["seed"], weighted["config_hash"]) == (3, config_hash(load_config(learned).to_dict()))


def test_a_fresh_model_draws_as_training_begins(drawn: dict[str, Any], tmp_path: Path) -> None:
    path = tiny.write_config(tmp_path / "learned.py", seed=3)
    assert draw_masks([path], [], tmp_path / "x.png", count=4, draws=2, seed=5) == ["MLO-MAE"]
    model, data = tiny.trainer(tiny.config(seed=3))
    assert [label for label, *_ in drawn["rows"]] == ["MLO-MAE", "draw 2"]
    index = [int((data.train.images_NCHW == i).flatten(1).all(1).nonzero()[0, 0]) for i in pixels(drawn["images"])]
    assert len(set(index)) == 4
    key = random_keys.fold(random_keys.fold(random_keys.root_key(5, "masks"), 0), torch.tensor(index))
    for draw, (_, mask, weight, grid) in enumerate(drawn["rows"]):
        batch = {"image": drawn["images"], "key": random_keys.fold(key, draw)}
        expected = model.choose_mask(model.mae.encoder.embed(batch["image"]), batch)
        assert grid == (4, 4)
        assert torch.equal(mask, expected.mask)
        torch.testing.assert_close(weight, expected.weight.detach())
    assert not torch.equal(drawn["rows"][0][1], drawn["rows"][1][1])
    assert "outlined: objects" in drawn["title"]


def pixels(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images * std + mean) * 255).round().to(torch.uint8)


def test_a_checkpoint_draws_with_its_weights_in_the_row_of_its_config(
    drawn: dict[str, Any], config: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"name": "run", "mask__sampling": "topk", "optim__phi": {"lr": 0.3}}
    changes |= {"data__eval": {"type": "imagefolder", "root": "gone", "split": "val"}}
    run = tiny.config(**changes | {"data__eval": None}, train__outer_iterations=4)
    run_pretraining(run, tmp_path / "run")
    checkpoint = checkpoint_path(tmp_path / "run", 4)
    own = tiny.write_config(tmp_path / "own.py", **changes)  # evaluation images, which are not there, are not opened
    assert draw_masks([own, config], [checkpoint], tmp_path / "x.png") == ["MLO-MAE, 4 iterations", "MAE"]
    trained = drawn["rows"][0][1]
    model = Pretrainer(run, tiny.CLASSES)
    for name, module in load_checkpoint(checkpoint)["modules"].items():
        getattr(model, name).load_state_dict(module)
    batch = {"image": drawn["images"], "key": torch.zeros(8, dtype=torch.int64)}
    assert torch.equal(trained, model.choose_mask(model.mae.encoder.embed(batch["image"]), batch).mask)
    draw_masks([own], [], tmp_path / "x.png")
    assert not torch.equal(trained, drawn["rows"][0][1]), "the fresh model's"
    assert draw_masks([config], [checkpoint], tmp_path / "x.png") == ["MAE", "MLO-MAE, 4 iterations"]
    assert draw_masks([], [checkpoint], tmp_path / "x.png") == ["MLO-MAE, 4 iterations"]
    assert "iterations" not in drawn["title"]
    assert draw_masks([], [checkpoint] * 2, tmp_path / "x.png") == ["MLO-MAE", "MLO-MAE"]
    assert drawn["title"].startswith("textures train, seed 0, after 4 outer iterations")


def test_continued_pretraining_draws_with_the_weights_it_starts_from(
    drawn: dict[str, Any], mae_checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"mask__sampling": "topk", "seed": 7}
    found = []
    for name, start in (("fresh", None), ("continued", str(mae_checkpoint))):
        draw_masks([tiny.write_config(tmp_path / f"{name}.py", **changes, init_from=start)], [], tmp_path / "x.png")
        found.append(drawn["rows"][0][1])
    assert not torch.equal(*found)


def test_a_teacher_is_a_copy_of_the_weights_that_a_row_starts_from(mae_checkpoint: Path) -> None:
    mask = {"type": "attmask", "ratio": 0.75}
    model = masks.Row(tiny.config(method="attmask", mask=mask, init_from=str(mae_checkpoint))).build_model()
    copies = dict(model.mask.teacher.model.named_parameters())
    assert all(torch.equal(p, copies[name]) for name, p in model.mae.encoder.named_parameters())
    loaded = load_checkpoint(mae_checkpoint)["modules"]["mae"]
    assert torch.equal(copies["norm.weight"], loaded["encoder.norm.weight"])


class Scheduled(RandomMasking):
    """Notes the progress."""

    scheduled = True
    seen: ClassVar[list[float]] = []

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        self.seen.append(state.progress)
        return super().forward(tokens_BLD, images, ratio, epoch, state)


def test_the_progress_is_the_checkpoints_or_the_one_that_is_given(
    drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(registry._STRATEGIES._builders, "scheduled", Scheduled)
    changes = {"mask": {"type": "scheduled", "ratio": 0.75}, "name": "scheduled", "data__eval": None}
    changes |= {"train__outer_iterations": 4}
    run_pretraining(config_from_dict(tiny.values(**changes)), tmp_path / "run")
    path = tiny.write_config(tmp_path / "config.py", **changes)
    for checkpoints, given, expected in (
        ([], None, 0.0),
        ([2], None, 0.5),
        ([4], None, 0.75),
        ([], 0.9, 0.9),
        ([2], 0.1, 0.1),
    ):
        Scheduled.seen.clear()
        trained = [checkpoint_path(tmp_path / "run", n) for n in checkpoints]
        draw_masks([path], trained, tmp_path / "x.png", progress=given)
        assert Scheduled.seen == [expected]
    Scheduled.seen.clear()
    diagnose(checkpoint_path(tmp_path / "run", 2), 2, 8, "nca", "own", None, tmp_path / "diagnosed")
    assert set(Scheduled.seen) == {0.5}


# --- images -------------------------------------------------------------------------------------------------------


def test_pictures_of_any_size_are_cut_to_the_models_and_others_left_out(
    drawn: dict[str, Any], config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "pictures", [(16, 16), (40, 30), (20, 90), (8, 9)])
    for name in ("._0.png", ".DS_Store", "notes.txt"):
        (root / name).write_text("no image")
    draw_masks([config], [], tmp_path / "x.png", images=root, count=8)
    assert drawn["images"].shape == (4, 3, 16, 16), "all that there are"
    assert capsys.readouterr().out.endswith(": left out: 2 hidden, 1 .txt\n")
    shades = sorted(int(image.float().mean().round()) for image in pixels(drawn["images"]))
    assert shades == [0, 40, 80, 120]
    draw_masks([config], [], tmp_path / "x.png", images=root, count=2)
    assert len(drawn["images"]) == 2
    assert str(tmp_path) not in drawn["title"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "x.jpg"], "must end in .png"),
        (["--count", "0"], "--count must be at least 1; got 0"),
        (["--draws", "0"], "--draws must be at least 1; got 0"),
        (["--progress", "1"], "--progress must be inside [0, 1); got 1.0"),
        (["--progress", "nan"], "--progress must be inside [0, 1); got nan"),
        (["--images", "nowhere"], "pictures: nowhere does not exist; give the folder"),
        (["--images", "EMPTY"], "holds no picture"),
        (["--images", "DAMAGED"], "cannot decode"),
        (["--images", "EMPTY", "--data", "x"], "give one of them"),
        (["--checkpoints", "gone.pth"], "checkpoint 'gone.pth' does not exist"),
        (["--checkpoints", "DAMAGED/0.png"], "is damaged"),
        (["--data", "x"], "'textures' has no option 'root'"),
        (["LARGE.py"], "takes images of 32 pixels"),
        (["gone.py"], "config file 'gone.py' does not exist"),
        (["ORACLE.py", "--images", "GOOD"], "needs to know the objects"),
    ],
)
def test_wrong_input_is_one_line(
    options: list[str], words: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("EMPTY", "DAMAGED", "GOOD"):
        (tmp_path / name).mkdir()
    (tmp_path / "DAMAGED" / "0.png").write_bytes(b"nothing")
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(tmp_path / "GOOD" / "0.png")
    tiny.write_config(tmp_path / "LARGE.py", name="large", model__img_size=32)
    tiny.write_config(tmp_path / "ORACLE.py", name="oracle", mask={"type": "oracle", "ratio": 0.75})
    given = [str(tmp_path / word) if word[:4].isupper() else word for word in options]
    out = [] if "--out" in given else ["--out", str(tmp_path / "x.png")]
    capsys.readouterr()
    assert main(["masks", str(config), *given, *out]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words.replace("\\", "") in lines[0]
    assert not (tmp_path / "x.png").exists()


def test_nothing_to_draw_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "--out", str(tmp_path / "x.png")]) == 2
    assert "nothing to draw" in capsys.readouterr().err
