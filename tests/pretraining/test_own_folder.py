"""`mlomae pretrain --data FOLDER`: a recipe from what the folder holds, the run, its config, and what is said."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from photos import CLASSES, paint, paint_classes, paint_heap
from PIL import Image
from run_samples import one_line

from mlomae.cli import build_parser, main
from mlomae.common.checkpoint import list_checkpoints, load_checkpoint
from mlomae.common.console import WIDTH
from mlomae.common.errors import ConfigError, DataError
from mlomae.config.schema import config_from_dict, load_config
from mlomae.config.text import config_text
from mlomae.data.found import look_into
from mlomae.pretraining.recipe import METHODS, choose_recipe

SHORT = ["--cfg-options", "train.outer_iterations=12", "train.log_interval=4", "data.num_workers=0"]
SMALL = [*SHORT, "model.img_size=16", "model.patch_size=8", "data.batch_size=4"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_classes(tmp_path_factory.mktemp("photos") / "pets")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    work = tmp_path_factory.mktemp("runs") / "first"
    assert main(["pretrain", "--data", str(photos), "--work-dir", str(work), *SMALL]) == 0
    return work


def record_of(work: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((work / "record.json").read_text())
    return record


@pytest.mark.parametrize(
    ("side", "gpu", "expected"),
    [
        (32, False, (32, 4, "tiny")),
        (64, False, (64, 8, "tiny")),
        (224, False, (96, 12, "tiny")),
        (64, True, (64, 8, "small")),
        (120, True, (96, 8, "small")),
        (224, True, (224, 16, "small")),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_is_a_valid_configuration(tmp_path, method, side, gpu, expected) -> None:
    for c, name in enumerate(CLASSES[:2]):
        for i in range(4):
            paint(tmp_path / name / f"{i}.png", 10 * c + i, (side, side + 8))
    recipe = choose_recipe(look_into(tmp_path), method, gpu)
    config = config_from_dict(recipe.values)
    assert (config.model.img_size, config.model.patch_size, config.model.size) == expected
    assert (config.mask["type"] == "learned") == (method == "learned")
    assert f"{config.model.img_size} pixels" in recipe.reason


def test_length_and_batch_follow_the_number_of_images(photos: Path) -> None:
    found = look_into(photos)
    few, many = (choose_recipe(look_into(photos)).values, None), None
    object.__setattr__(found, "images", {"all": 1_000_000})
    many = choose_recipe(found).values
    assert few[0]["data"]["batch_size"] == 8
    assert few[0]["train"]["outer_iterations"] * 16 == 25_600
    assert many["data"]["batch_size"] == 64
    assert many["train"]["outer_iterations"] * 128 == 256_000
    assert choose_recipe(found, gpu=True).values["model"]["size"] == "base"


def test_a_recipe_needs_two_images_and_the_learned_mask_labels(tmp_path: Path) -> None:
    paint(tmp_path / "0.png", 0)
    with pytest.raises(DataError, match="two at least"):
        choose_recipe(look_into(tmp_path))
    paint(tmp_path / "1.png", 1)
    assert choose_recipe(look_into(tmp_path)).values["data"]["batch_size"] == 2
    with pytest.raises(ConfigError, match="learns the mask from labels"):
        choose_recipe(look_into(tmp_path), "learned")
    with pytest.raises(ConfigError, match="--method must be one of mae, learned"):
        choose_recipe(look_into(tmp_path), "simclr")


def test_the_run_says_what_it_does_and_how_to_go_on(photos: Path, tmp_path: Path, capsys: Any) -> None:
    work = tmp_path / "work"
    assert main(["pretrain", "--data", str(photos), "--work-dir", str(work), *SMALL]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    starts = ["pretraining", "found", "recipe", "note", "method", "images", "model", "device", "length", "output"]
    assert [line.split()[0].rstrip(":") for line in lines if not line.startswith(" ")][:10] == starts
    assert f"output: {work} (config.py, checkpoints" in said
    assert "30 images in 3 class folders (cat, dog, owl)" in said
    assert "21 to train on at 16 pixels, 3 set aside (data.val_fraction), 6 held out" in said
    assert re.search(r"^time: about \d+ s", said, re.MULTILINE)
    assert "first loss_lower: " in said
    assert f"first picture: {work / 'pictures' / 'iter_10.png'}" in said
    assert re.search(r"k-NN [\d.]+ %, linear probe [\d.]+ % of 6 held-out images", said)
    assert str(list_checkpoints(work)[-1]) in said
    assert all(len(line) <= WIDTH or str(tmp_path) in line for line in lines)
    commands = [shlex.split(line) for line in lines if line.startswith("  mlomae ")]
    assert [command[1] for command in commands] == ["classify", "embed", "export"]
    assert str(photos) in commands[0]
    assert main(commands[2][1:]) == 0


def test_the_written_config_repeats_the_run(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["pretrain", str(run / "config.py"), "--work-dir", str(again)]) == 0
    first, second = record_of(run), record_of(again)
    assert first["config_hash"] == second["config_hash"]
    assert first["config"]["train"]["outer_iterations"] == 12, "with what the command line has changed"
    states = [load_checkpoint(list_checkpoints(work)[-1])["modules"]["mae"] for work in (run, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_held_out_images_reach_no_level(run: Path, photos: Path) -> None:
    record = record_of(run)
    assert record["train_source"].endswith("train, 24 images")
    assert record["eval_source"].endswith("held_out, 6 images")
    assert record["metrics"]["n_test"] == 6
    assert record["copies"]["training"] == {"compared": 6, "equal": 0, "near": 0}


def test_a_second_start_is_refused_and_resume_takes_its_config(run: Path, photos: Path, capsys: Any) -> None:
    text = (run / "config.py").read_text()
    assert main(["pretrain", "--data", str(photos), "--work-dir", str(run)]) == 2
    assert "--resume" in one_line(capsys.readouterr().err)
    assert (run / "config.py").read_text() == text
    assert main(["pretrain", "--data", str(photos), "--work-dir", str(run), "--resume"]) == 0
    assert "the one in" in capsys.readouterr().out


def test_no_config_of_the_user_is_written_over(photos: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "config.py").write_text("mine = 1\n")
    assert main(["pretrain", "--data", str(photos), "--work-dir", str(tmp_path), *SMALL]) == 2
    assert "is another config, which would be replaced" in one_line(capsys.readouterr().err)
    assert (tmp_path / "config.py").read_text() == "mine = 1\n"


@pytest.mark.parametrize("other", ["images", "method", "labels"])
def test_a_resumed_run_is_of_the_same_images_and_method(
    run: Path, photos: Path, tmp_path: Path, capsys: Any, other: str
) -> None:
    data = paint_classes(tmp_path / "others", 2) if other == "images" else photos
    more = {"images": [], "method": ["--method", "learned"], "labels": ["--no-labels"]}[other]
    assert main(["pretrain", "--data", str(data), "--work-dir", str(run), "--resume", *more]) == 2
    error = one_line(capsys.readouterr().err)
    assert f"is of MAE on {photos}, not of" in error
    assert "another --work-dir" in error


def test_the_learned_mask(photos: Path, tmp_path: Path, capsys: Any) -> None:
    work = tmp_path / "work"
    assert main(["pretrain", "--data", str(photos), "--method", "learned", "--work-dir", str(work), *SMALL]) == 0
    assert "that teach the mask" in capsys.readouterr().out
    assert record_of(work)["config"]["mask"]["type"] == "learned"


@pytest.mark.parametrize("more", [[], ["--no-labels"]])
def test_a_heap_has_no_evaluation(tmp_path: Path, capsys: Any, more: list[str]) -> None:
    root = paint_classes(tmp_path / "heap", 2) if more else paint_heap(tmp_path / "heap", 6)
    work = tmp_path / "work"
    assert main(["pretrain", "--data", str(root), "--work-dir", str(work), *more, *SMALL]) == 0
    said = capsys.readouterr().out
    assert "6 images without labels" in said
    assert "k-NN" not in said
    assert "last loss_lower" in said
    commands = [shlex.split(line)[1:] for line in said.splitlines() if line.startswith("  mlomae ")]
    assert commands[0][0] == "masks"
    build_parser().parse_args(commands[0])
    assert main(commands[0]) == 0
    assert (work / "masks.png").is_file()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["one.png"], "two at least"),
        ([], "holds no image"),
        (["a.png", "cat/b.png", "dog/c.png"], "--no-labels"),
        (["a.png", "b.png", "c.jpg!"], "c.jpg (not an image"),
        (["a.png", "b.png", "c.jpg!", "d.jpg!"], "2 of 4 images"),
    ],
)
def test_odd_folders_are_one_line(tmp_path: Path, capsys: Any, files: list[str], words: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(files):
        if name.endswith("!"):
            (folder / name[:-1]).write_text("no image")
        else:
            paint(folder / name, i)
    assert main(["pretrain", "--data", str(folder), "--work-dir", str(tmp_path / "work"), *SMALL]) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not list_checkpoints(tmp_path / "work")


def test_two_grey_images_of_which_one_is_turned(tmp_path: Path, capsys: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(2):
        image = Image.effect_noise((40 + i, 30), 50 + i)
        image.save(tmp_path / f"{i}.jpg", exif=exif)
    assert main(["pretrain", "--data", str(tmp_path), "--work-dir", str(tmp_path / "w"), *SHORT[:2]]) == 0
    assert "2 images teach little" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "mlomae pretrain --data FOLDER"),
        (["{photos}"], "mlomae pretrain --data {photos}"),
        (["configs/pretrain/mae_vit-w128-d4_textures.py", "--method", "learned"], "without a config"),
        (["configs/pretrain/mae_vit-w128-d4_textures.py", "--data", "{photos}"], "mlomae pretrain --data {photos}"),
        (["configs/pretrain/mae_vit-w128-d4_cifar10.py", "--data", "{photos}"], "mlomae pretrain --data {photos}"),
        (["{photos}/cat/00.png"], "is no config"),
        (["--data", "{photos}/cat/00.png"], "give its folder, {photos}/cat"),
        (["--data", "{photos}s"], "give a folder of images"),
        (["--data", "{photos}", "--cfg-options", "name=a/b"], "part of file names"),
    ],
)
def test_wrong_guesses_name_the_next_step(photos: Path, capsys: Any, arguments: list[str], words: str) -> None:
    assert main(["pretrain", *(a.format(photos=photos) for a in arguments)]) == 2
    assert words.format(photos=photos) in one_line(capsys.readouterr().err)


def test_printed_config_is_whole_and_is_a_config(photos: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["pretrain", "--data", str(photos), "--print-config", *SMALL]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "printed.py"
    path.write_text(text)
    config = load_config(path)
    assert config.train.outer_iterations == 12
    assert "keep_checkpoints=2" in text, "defaults, too"
    assert config_text(config.to_dict()) == text


@pytest.mark.parametrize("given", [["--data", "{photos}"], ["configs/pretrain/mae_vit-w128-d4_textures.py"]])
def test_the_seed_is_an_option(photos: Path, capsys: Any, given: list[str]) -> None:
    arguments = ["pretrain", *(a.format(photos=photos) for a in given), "--print-config"]
    assert main([*arguments, "--seed", "7"]) == 0
    assert "\nseed = 7\n" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "\nseed = 0\n" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["folder", "config"])
def test_a_dry_run_writes_nothing(
    photos: Path, run: Path, tmp_path: Path, capsys: Any, given: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", str(photos), *SMALL] if given == "folder" else [str(run / "config.py")]
    assert main(["pretrain", *arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for word in ("memory: ", "disk: ", "time: about ", "first loss_lower: ", "nothing was written"):
        assert word in said
    assert not list(tmp_path.iterdir())


def test_a_dry_run_decodes_all_images(tmp_path: Path, capsys: Any) -> None:
    (paint_heap(tmp_path / "heap", 5) / "bad.jpg").write_text("no image")
    assert main(["pretrain", "--data", str(tmp_path / "heap"), "--dry-run", *SMALL]) == 2
    assert "bad.jpg" in one_line(capsys.readouterr().err)
