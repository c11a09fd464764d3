"""A run from its checkpoint: what is loaded, what starts fresh, and which configurations are refused."""

from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from mlomae.backbones.create import create_backbone
from mlomae.backbones.export import export
from mlomae.backbones.provenance import describe_weights
from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import CheckpointError, ConfigError, DataError
from mlomae.models import MAE, create_encoder
from mlomae.models.loading import load_pretrained
from mlomae.models.weights import read_weights
from mlomae.pretraining.load import evaluate_checkpoint, load_run
from mlomae.pretraining.run import run_pretraining


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four iterations with a learned mask and a trained head, and a checkpoint every other iteration."""
    work = tmp_path_factory.mktemp("run")
    run_pretraining(tiny.config(name="loaded", data__eval=None, train__outer_iterations=4), work)
    return work


def test_the_folder_of_a_run_is_its_newest_checkpoint(folder: Path) -> None:
    newest, other = load_run(folder), load_run(str(checkpoint_path(folder, 2)))
    assert (newest.path, newest.folder, newest.iteration) == (checkpoint_path(folder, 4), folder, 4)
    assert (other.iteration, other.config.name) == (2, "loaded")


def test_every_module_has_the_checkpoints_weights(folder: Path) -> None:
    run = load_run(folder)
    model = run.build_model(run.data.num_classes)
    assert not model.training
    assert model.progress == 0.75, "the last iteration's place in the run"
    saved = load_checkpoint(run.path)["modules"]
    assert saved.keys() == {"mae", "mask", "feedback"}
    for name, module in model.saved_modules().items():
        assert tiny.differences(dict(module.cpu().state_dict()), saved[name]) == [], name


def test_without_the_number_of_classes_no_data_are_needed(folder: Path) -> None:
    run = load_run(folder, {"data.train.type": "imagefolder", "data.train.root": "nowhere"})
    encoder = {k.removeprefix("encoder."): v for k, v in run.state["modules"]["mae"].items() if k.startswith("encoder")}
    assert tiny.differences(dict(run.model.mae.encoder.cpu().state_dict()), encoder) == []
    assert run.model.feedback.fc.out_features == 2


def test_what_the_configuration_replaces_starts_fresh(folder: Path) -> None:
    run = load_run(folder, {"mask": {"type": "random"}})
    run.config.feedback = {"type": "linear", "pooling": "cls"}
    torch.manual_seed(0)
    model = run.build_model(run.data.num_classes)
    assert not list(model.mask.parameters())
    assert not torch.equal(model.feedback.fc.weight.cpu(), run.state["modules"]["feedback"]["fc.weight"])


def test_streams_have_the_images_of_their_level_in_their_own_order(folder: Path) -> None:
    run = load_run(folder)
    lower, upper = run.data.split.train_indices, run.data.split.val_indices
    for level, expected in (("lower", lower), ("head", lower), ("upper", upper)):
        stream = run.stream(level, "an order")
        assert set(stream.indices.tolist()) == set(expected.tolist())
        first = stream.batch(0, 8)
        assert torch.equal(first["image"], run.stream(level, "an order").batch(0, 8)["image"])
        assert not torch.equal(first["index"], run.stream(level, "another").batch(0, 8)["index"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"data.eval.root": "somewhere"}, "was trained without data.eval, so that data.eval.root cannot be set"),
        ({"data.trian": {}}, "unknown config key 'data.trian'; did you mean 'train'?"),
        ({"mask.ratio": 2.0}, "'mask.ratio'"),
    ],
)
def test_overrides_are_checked(overrides: dict[str, object], words: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        load_run(folder, overrides)
    assert "\n" not in str(error.value)


def test_other_folders_and_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; give the folder of a run, or an iter_N.pth file"):
        load_run(tmp_path)
    state = load_checkpoint(checkpoint_path(folder, 4))
    del state["modules"]["mae"]["encoder.cls_token"]
    torch.save(state, tmp_path / "iter_4.pth")
    with pytest.raises(CheckpointError, match=r"iter_4.pth' does not fit its configuration: mae weights lack encoder"):
        load_run(tmp_path / "iter_4.pth").build_model()
    with pytest.raises(ConfigError, match=r"without data.eval; nothing to evaluate on"):
        evaluate_checkpoint(folder)


def test_the_folder_of_a_run_is_a_backbone_and_a_start(folder: Path, tmp_path: Path) -> None:
    file, cls_token = checkpoint_path(folder, 4), load_run(folder).state["modules"]["mae"]["encoder.cls_token"]
    vit, _ = create_backbone(str(folder), num_classes=0, img_size=16, keep_norm=True)
    assert torch.equal(vit.cls_token, cls_token)
    assert describe_weights(str(folder)) == describe_weights(str(file))
    export(folder, tmp_path / "vit.safetensors", "safetensors")
    export(file, tmp_path / "same.safetensors", "safetensors")
    of_folder, of_file = (read_weights(tmp_path / name) for name in ("vit.safetensors", "same.safetensors"))
    assert of_folder.about == of_file.about
    numerics = load_run(folder).state["meta"]["numerics"]
    for provenance in map(describe_weights, (str(folder), str(tmp_path / "vit.safetensors"))):
        assert provenance.details["numerics"] == numerics
    assert tiny.differences(of_folder.encoder, of_file.encoder) == []
    mae = MAE(create_encoder("tiny", 16, 4, 16, 2, 2), 16, 1, 2)
    load_pretrained(mae, folder)
    assert torch.equal(mae.encoder.cls_token, cls_token)


@pytest.mark.parametrize("validation", [("ant", "cat"), ("ant", "bee", "cat", "dog"), ("ant", "bee", "cow")])
def test_classes_that_differ_are_refused_before_training_and_before_evaluation(
    validation: tuple[str, ...], tmp_path: Path
) -> None:
    """Labels are positions: without "bee" every "cat" would count as one."""
    for part, classes in {"train": ("ant", "bee", "cat"), "val": ("ant", "bee", "cat"), "odd": validation}.items():
        for name in classes:
            for i in range(3):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                Image.effect_noise((16, 16), 50 + i).save(tmp_path / part / name / f"{i}.png")
    sets = {part: {"type": "imagefolder", "root": str(tmp_path), "split": part} for part in ("train", "val", "odd")}
    short = {"name": "classes", "train__outer_iterations": 2, "data__batch_size": 4, **tiny.RANDOM}
    odd = sorted({"ant", "bee", "cat"} ^ set(validation))[0]
    with pytest.raises(DataError, match=f"classes of training and evaluation differ: .* has .*{odd}"):
        run_pretraining(tiny.config(data__train=sets["train"], data__eval=sets["odd"], **short), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.pth"))
    run_pretraining(tiny.config(data__train=sets["train"], data__eval=sets["val"], **short), tmp_path / "run")
    (tmp_path / "val" / "bee" / "0.png").write_bytes((tmp_path / "train" / "bee" / "1.png").read_bytes())
    with pytest.raises(DataError, match=r"1 of 9 evaluation images are in training \(val/bee/0.png = train/bee/1.png"):
        run_pretraining(tiny.config(data__train=sets["train"], data__eval=sets["val"], **short), tmp_path / "copies")
    with pytest.raises(DataError, match=f"classes of training and evaluation differ: .* has .*{odd}"):
        evaluate_checkpoint(tmp_path / "run", {"data.eval.split": "odd"})
    with pytest.raises(DataError, match=r"1 of 9 .* training of '.*run'"):  # what the weights have seen
        evaluate_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "images.npz").unlink()
    with pytest.raises(DataError, match=r"1 of 9 evaluation images are in training \(val/bee/0.png = train/bee/1.png"):
        evaluate_checkpoint(tmp_path / "run")
