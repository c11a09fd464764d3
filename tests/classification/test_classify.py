"""`mlomae classify` on a folder of pictures, and `mlomae predict` with what it writes."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cls_runs
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from photos import NAMES, write_photos
from PIL import Image, ImageOps
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from mlomae import cli, embed
from mlomae.backbones.finetuned import read_finetuned
from mlomae.backbones.load import evaluate_transfer, load_transfer
from mlomae.classification.classify import describe_backbone
from mlomae.classification.predict import predict_files
from mlomae.classification.recipe import Backbone, batch_size_for, choose_recipe
from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import ConfigError, DataError
from mlomae.common.files import read_json
from mlomae.data.found import look_into

CLASSES = 6
QUICK = ["train.epochs=3", "data.batch_size=4", "optim.lr=0.01"]


def read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"label": str, "predicted": str}, keep_default_na=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pretraining, a folder of photos, and the run of `mlomae classify`."""
    folder = tmp_path_factory.mktemp("classify")
    checkpoint, _ = cls_runs.pretrain(folder / "pretrained")
    data, out = write_photos(folder / "pets", 5, CLASSES), folder / "run"
    command = ["classify", "--data", str(data), "--weights", str(folder / "pretrained"), "--out", str(out)]
    assert cli.main([*command, "--cfg-options", *QUICK]) == 0
    return SimpleNamespace(
        folder=folder, data=data, out=out, checkpoint=checkpoint, record=read_json(out / "record.json")
    )


def test_the_predictions_with_file_names_give_the_metrics_of_the_record(trained):
    table = read_table(trained.out / "predictions.csv")
    metrics = trained.record["metrics"]
    assert len(table) == metrics["n"] == CLASSES
    assert [Path(file).parent.name for file in table["file"]] == table["label"].tolist()
    assert all((trained.data / file).is_file() for file in table["file"])
    assert 100 * accuracy_score(table["label"], table["predicted"]) == pytest.approx(metrics["top1"], abs=1e-9)
    balanced = balanced_accuracy_score(table["label"], table["predicted"])
    assert 100 * balanced == pytest.approx(metrics["mean_per_class"], abs=1e-9)
    five = ["predicted", *(f"predicted_{k}" for k in range(2, 6))]
    assert 100 * table[five].eq(table["label"], axis=0).any(axis=1).mean() == pytest.approx(metrics["top5"], abs=1e-9)
    assert 100 * table[five[1:]].eq(table["label"], axis=0).any(axis=1).mean() != pytest.approx(metrics["top5"])


def logits_by_timm(folder: Path, files: list[Path]) -> torch.Tensor:
    """What somebody who knows timm alone computes."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
    pictures = [ImageOps.exif_transpose(Image.open(file)).convert("RGB") for file in files]
    with torch.no_grad():
        return model(torch.stack([transform(picture) for picture in pictures]))


def test_timm_makes_the_same_predictions_of_the_folder_that_was_written(trained):
    files = sorted(trained.data.rglob("*.*"))
    table = predict_files(trained.out, files)
    names = timm.create_model(f"local-dir:{trained.out}", pretrained=True).pretrained_cfg["label_names"]
    assert tuple(names) == NAMES[:CLASSES]
    logits = logits_by_timm(trained.out, files)
    found = logits.softmax(1).sort(descending=True)
    assert table["predicted"].tolist() == [names[i] for i in found.indices[:, 0]]
    torch.testing.assert_close(torch.tensor(table["probability"]), found.values[:, 0].double(), rtol=0, atol=1e-5)
    with torch.no_grad():  # mutation: a pooling that it was not trained with
        model = timm.create_model(f"local-dir:{trained.out}", pretrained=True, global_pool="avg", num_classes=0).eval()
        assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 16)


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_images_of_a_foreign_folder_are_cut_as_it_says(trained, tmp_path, mode):
    folder = tmp_path / "timm"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(trained.out / name, folder)
    known = read_json(folder / "config.json")
    known["pretrained_cfg"] |= {"crop_mode": mode, "crop_pct": 0.8}
    (folder / "config.json").write_text(json.dumps(known))
    files = sorted(trained.data.rglob("*.*"))
    found = torch.tensor(predict_files(folder, files)["probability"])
    expected = logits_by_timm(folder, files).softmax(1).max(1).values.double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert cli.main(["export", str(folder), str(tmp_path / "again"), "--format", "timm"]) == 0
    assert read_json(tmp_path / "again" / "config.json")["pretrained_cfg"]["crop_mode"] == mode


def test_a_run_its_checkpoint_and_a_copy_for_timm_predict_the_same(trained, tmp_path, capsys):
    shutil.copy(trained.out / "config.json", tmp_path)
    shutil.copy(trained.out / "model.safetensors", tmp_path)
    (checkpoint,) = (trained.out / "checkpoints").glob("*.pth")
    tables = []
    for i, model in enumerate((trained.out, checkpoint, tmp_path, tmp_path / "model.safetensors")):
        out = tmp_path / f"{i}.csv"
        assert cli.main(["predict", str(model), str(trained.data), "--out", str(out)]) == 0
        tables.append(out.read_text())
    assert tables[0] == tables[1] == tables[2] == tables[3]
    assert len(tables[0].splitlines()) == 31
    known = json.loads((tmp_path / "config.json").read_text())
    known["label_names"][:2] = known["label_names"][1::-1]  # mutation
    (tmp_path / "config.json").write_text(json.dumps(known))
    assert predict_files(tmp_path, [trained.data]).to_csv() != predict_files(trained.out, [trained.data]).to_csv()
    capsys.readouterr()
    assert cli.main(["predict", str(trained.out), str(trained.data / "cat" / "0.png")]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["file", "predicted", "probability"]
    assert row.split()[0].endswith("0.png")
    assert "%" in row


def test_held_out_images_are_those_that_the_run_was_tested_on(trained):
    table = read_table(trained.out / "predictions.csv")
    again = predict_files(trained.out, [trained.data / file for file in table["file"]])
    assert again["predicted"].tolist() == table["predicted"].tolist()
    np.testing.assert_allclose(again["probability"], table["probability"], atol=1e-5)


def test_evaluate_takes_the_run_and_the_checkpoint(trained, capsys):
    for model in (trained.out, next((trained.out / "checkpoints").glob("*.pth"))):
        assert cli.main(["evaluate", str(model)]) == 0
        printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert float(printed["top1"]) == pytest.approx(trained.record["metrics"]["top1"], abs=0.01)
    assert cli.main(["evaluate", str(trained.folder / "pretrained")]) == 0
    assert "knn_top1_cls" in capsys.readouterr().out


def test_evaluation_on_images_that_were_trained_on_is_said_or_refused(trained, caplog):
    evaluate_transfer(trained.out)
    assert not caplog.records, "those that it was tested on"
    swapped = {"data.train.part": "held_out", "data.test.part": "train"}
    evaluate_transfer(trained.out, swapped)
    assert "24 of 24 test images were among those of the training" in caplog.text
    with pytest.raises(DataError, match="24 of 24 evaluation images are in training"):
        evaluate_transfer(trained.out, swapped | {"data.allow_seen": False})


def test_what_was_chosen_is_a_config_that_makes_the_same_run(trained, capsys):
    written = trained.out / "config.py"
    config = cls_runs.TASK.load_config(written)
    saved = torch.load(next((trained.out / "checkpoints").glob("*.pth")), weights_only=True)["config"]
    assert config.to_dict() == saved
    again = trained.folder / "again"
    assert cli.main(["classify", str(written), "--out", str(again)]) == 0
    assert read_json(again / "record.json")["metrics"] == trained.record["metrics"]
    assert read_json(again / "record.json")["config_hash"] == trained.record["config_hash"]
    for name in ("predictions.csv", "model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (trained.out / name).read_bytes()
    assert "accuracy" in capsys.readouterr().out


def test_what_is_said_before_and_after(trained, tmp_path, capsys):
    command = ["classify", "--data", str(trained.data), "--weights", str(trained.checkpoint), "--out", str(tmp_path)]
    assert cli.main([*command, "--cfg-options", "train.epochs=1"]) == 0
    printed = capsys.readouterr().out
    assert "30 images in 6 class folders (cat, dog, elk and 3 more)" in printed
    assert "24 to train on, 6 held out" in printed
    assert "images of 16 pixels" in printed
    assert "1 epoch of 3 steps with 8 images = 3 steps on" in printed
    assert f"mlomae predict {tmp_path}" in printed
    assert cli.main([*command, "--cfg-options", "train.epochs=1"]) == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.py", "config.json", "model.safetensors"])
def test_no_file_of_the_user_is_written_over(trained, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine = 1\n")
    commands = [["--data", str(trained.data), "--weights", str(trained.checkpoint)]]
    commands += [[str(trained.out / "config.py")]] if name != "config.py" else []  # which only a chosen recipe writes
    for command in commands:
        assert cli.main(["classify", *command, "--out", str(tmp_path)]) == 2
        assert f"holds {name}, which would be replaced; name another folder" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine = 1\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_images_that_pretraining_saw_are_counted_not_refused(trained, tmp_path, capsys):
    given = {"type": "pictures", "root": str(trained.data), "below": True}
    checkpoint, _ = cls_runs.pretrain(
        tmp_path / "heap", data__train=given, data__eval=None, mask={"type": "random", "ratio": 0.75}
    )
    command = ["classify", "--data", str(trained.data), "--weights", str(checkpoint), "--out", str(tmp_path / "run")]
    assert cli.main([*command, "--cfg-options", "train.epochs=1"]) == 0
    assert "6 of them were in the pretraining, too" in capsys.readouterr().out
    assert read_json(tmp_path / "run" / "record.json")["copies"]["pretraining"]["equal"] == 6
    options = ["train.epochs=1", "data.allow_seen=False"]
    assert cli.main([*command[:-1], str(tmp_path / "refused"), "--cfg-options", *options]) == 2
    assert not (tmp_path / "refused" / "checkpoints").exists()


def test_near_copies_of_a_split_of_ours_are_counted_not_refused(trained, tmp_path, capsys):
    """Photos taken in series; a user of class folders chose neither part, and those of no split could be removed."""
    data = tmp_path / "pets"
    for path in trained.data.rglob("*.*"):
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        for i in range(3):  # equal pixels, too, as a bitmap
            picture.point(lambda value, i=i: max(0, value - i)).save(data / path.parent.name / f"{path.stem}_{i}.png")
        picture.save(data / path.parent.name / f"{path.stem}.bmp")
    command = ["classify", "--data", str(data), "--weights", str(trained.checkpoint), "--out", str(tmp_path / "run")]
    assert cli.main([*command, "--cfg-options", "train.epochs=1", "data.batch_size=4"]) == 0
    copies, said = read_json(tmp_path / "run" / "record.json")["copies"]["training"], capsys.readouterr().out
    assert "recipe   1 epoch of " in said
    assert copies["equal"] == 0
    assert copies["near"] > 1
    assert f"{copies['near']} of them look like images trained on" in said


def test_images_are_normalised_as_the_weights_want(trained, tmp_path, capsys):
    folder = tmp_path / "hf"
    assert cli.main(["export", str(trained.checkpoint), str(folder), "--format", "huggingface"]) == 0
    said = folder / "preprocessor_config.json"
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    said.write_text(json.dumps(read_json(said) | {f"image_{key}": value for key, value in half.items()}))
    command = ["classify", "--data", str(trained.data), "--weights", str(folder), "--out", str(tmp_path / "run")]
    assert cli.main([*command, "--cfg-options", "train.epochs=1"]) == 0
    data = read_json(tmp_path / "run" / "record.json")["config"]["data"]
    for section in (data["augment"], data["evaluate"], read_finetuned(tmp_path / "run").evaluate):
        assert {key: section[key] for key in half} == half
    own, forced = (embed(folder, trained.data, **options) for options in ({}, half))
    assert torch.equal(own, forced)
    with pytest.raises(ConfigError, match=r"embed\.mean"):
        embed(folder, trained.data, mean=(0.4, 0.5, 0.6))


def test_a_pretraining_tells_how_its_images_were_normalised(trained, tmp_path):
    augment = {"type": "Plain", "mean": [0, 0.5, 1], "std": [0.2, 0.3, 1]}
    random = {"type": "random", "ratio": 0.75}
    checkpoint, _ = cls_runs.pretrain(tmp_path / "run", data__augment=augment, data__eval=None, mask=random)
    known = {key: augment[key] for key in ("mean", "std")}
    assert describe_backbone(str(checkpoint)).pixels == known
    images = torch.arange(2 * 3 * 16 * 16).remainder(251).reshape(2, 3, 16, 16).byte()
    assert torch.equal(embed(checkpoint, images), embed(checkpoint, images, **known))
    floats = (images / 255 - torch.tensor(augment["mean"])[:, None, None]) / torch.tensor(augment["std"])[:, None, None]
    torch.testing.assert_close(embed(checkpoint, images), embed(checkpoint, floats), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "command", ["diagnose {run}", "horizon {run}", "masks --checkpoints {run} --out m.png", "predict {pre} {run}"]
)
def test_a_run_of_the_other_kind_is_one_line(trained, capsys, command):
    filled = command.format(run=trained.out, pre=trained.checkpoint)
    assert cli.main(filled.split()) == 2
    error = capsys.readouterr().err
    assert "a transfer's, of `mlomae classify` or `bench`; give a pretraining's" in error or "fine-tune it" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["evaluate {run}", "embed {run} {data} --out f.npz", "export {run} e.safetensors"])
def test_the_folder_of_a_pretraining_stands_for_its_checkpoint(trained, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.format(run=trained.folder / "pretrained", data=trained.data).split()) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "{data}/cat", "--weights", "{ckpt}"], "images without labels; put the images of each class"),
        (["--data", "{data}"], "name the backbone with --weights"),
        ([], "mlomae classify --data FOLDER"),
        (["{data}", "--weights", "{ckpt}"], "is a folder; say --data"),
        (["--data", "{data}", "--weights", "random"], "random:PATH"),
        (["--data", "{data}", "--weights", "nowhere"], "nowhere"),
        (["--data", "{data}", "--weights", "timm:resnet18"], "choose a plain ViT"),
        (
            ["--data", "{data}", "--weights", "{ckpt}", "--cfg-options", "optim.rate=1"],
            "unknown config key 'optim.rate'",
        ),
        (["--data", "{data}", "--weights", "{ckpt}", "--cfg-options", "name.x=1"], "--cfg-options cannot be applied"),
    ],
)
def test_what_cannot_be_classified_is_one_line(trained, capsys, arguments, said):
    filled = [part.format(data=trained.data, ckpt=trained.checkpoint) for part in arguments]
    assert cli.main(["classify", *filled, "--out", str(trained.folder / "refused")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (trained.folder / "refused").exists()


@pytest.mark.parametrize(
    ("model", "image", "said"),
    [
        ("pretrained", "pets", "tells no classes apart; fine-tune it first"),
        ("run", "nowhere.jpg", "'nowhere.jpg' does not exist"),
        ("run", "run/record.json", "no image, or damaged: 1 of 1 file (run/record.json)"),
        ("run", "pretrained/checkpoints", "holds no image"),
        ("pets", "pets", "holds no checkpoint"),
        ("weights.safetensors", "pets", "holds weights without what they are for"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(trained, capsys, monkeypatch, model, image, said):
    monkeypatch.chdir(trained.folder)
    shutil.copy(trained.out / "model.safetensors", "weights.safetensors")
    assert cli.main(["predict", model, image]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["predict {run} {data}", "embed {run} {data} --out f.npz"])
@pytest.mark.parametrize("size", ["0", "-1"])
def test_a_batch_of_no_images_is_one_line(trained, capsys, command, size):
    assert cli.main([*command.format(run=trained.out, data=trained.data).split(), "--batch-size", size]) == 2
    error = capsys.readouterr().err
    assert f"--batch-size must be at least 1; got {size}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"dta.x": 1}, "unknown config key 'dta'"),
        ({"data.val.root": "x"}, "set that, too"),
        ({"name.x": 1}, "cannot be applied"),
    ],
)
def test_wrong_overrides_of_a_transfer_are_named(trained, overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_transfer(trained.out, overrides)


def test_a_linear_probe_predicts_with_the_backbone_that_it_was_trained_on(trained, tmp_path, capsys):
    shutil.copy(trained.checkpoint, tmp_path / "backbone.pth")
    values = cls_runs.values(protocol="linear", backbone={"weights": str(tmp_path / "backbone.pth"), "img_size": 16})
    cls_runs.run_transfer(cls_runs.ClassificationConfig.from_dict(values), tmp_path / "probe")
    steps = cls_runs.opened(cls_runs.ClassificationConfig.from_dict(values))
    for i in range(10):
        Image.fromarray(steps.test.image(i).permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    found = predict_files(tmp_path / "probe", [tmp_path / f"{i}.png" for i in range(10)])
    kept = read_table(tmp_path / "probe" / "predictions.csv")[:10]
    assert found["predicted"].tolist() == kept["predicted"].tolist()
    np.testing.assert_allclose(found["probability"], kept["probability"], atol=1e-5)
    metrics = read_json(tmp_path / "probe" / "record.json")["metrics"]
    assert evaluate_transfer(tmp_path / "probe")["top1"] == metrics["top1"]
    other, _ = cls_runs.pretrain(tmp_path / "other", seed=1)
    shutil.copy(other, tmp_path / "backbone.pth")
    assert cli.main(["predict", str(tmp_path / "probe"), str(tmp_path / "0.png")]) == 2
    assert "has changed; put it back" in capsys.readouterr().err


def test_an_average_of_the_weights_is_what_predicts(tmp_path):
    config = cls_runs.config(train__ema=0.9)
    cls_runs.run_transfer(config, tmp_path)
    steps = cls_runs.opened(config)
    Image.fromarray(steps.test.image(0).permute(1, 2, 0).numpy()).save(tmp_path / "0.png")
    found = predict_files(tmp_path, [tmp_path / "0.png"])
    kept = read_table(tmp_path / "predictions.csv")
    assert found["probability"][0] == pytest.approx(kept["probability"][0], abs=1e-5)
    state = torch.load(list_checkpoints(tmp_path)[-1], weights_only=True)["modules"]
    assert not torch.equal(state["backbone"]["head.weight"], state["ema"]["module.head.weight"])
    assert torch.equal(read_finetuned(tmp_path).model.head.weight, state["ema"]["module.head.weight"])


@pytest.mark.parametrize(
    ("images", "gpu", "size"), [(1, False, 2), (5, False, 4), (30, False, 8), (1000, False, 32), (1000, True, 64)]
)
def test_the_batch_size_fits_the_images(images, gpu, size):
    assert batch_size_for(images, gpu) == size


def test_the_recipe_follows_what_was_found(trained):
    found = look_into(trained.data)
    assert describe_backbone(str(trained.checkpoint)) == Backbone(str(trained.checkpoint), 16, 16)
    assert describe_backbone("timm:vit_tiny_patch16_224").embed_dim == 192
    small = choose_recipe(found, 24, Backbone("w", 16, 16), False, "x")
    large = choose_recipe(found, 20_000, Backbone("w", 224, 768), True, "x")
    assert (small["train"]["epochs"], large["train"]["epochs"]) == (100, 20)
    assert (small["data"]["mix"], small["data"]["augment"]["type"]) == (None, "crop_flip")
    assert large["data"]["augment"] == {"type": "rand_augment"}
    assert large["data"]["mix"]
    assert (large["data"]["batch_size"], large["optim"]["lr"]) == (256, 1e-3)
    for recipe in (small, large):
        cls_runs.ClassificationConfig.from_dict(recipe)
