"""Whole transfers: what lands in the folder agrees with itself and with mmseg's step, and leaks are refused."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seg_runs
import tiny
import torch
from backbone_samples import write_checkpoint
from PIL import Image
from run_samples import one_line
from seg_runs import main, run_transfer
from sklearn.metrics import jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex

from benchmarks.analysis.evidence import read_evidence
from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.transfer.dense import palette
from mlomae import records
from mlomae.backbones.training import TransferStep
from mlomae.common.checkpoint import checkpoint_path, list_checkpoints, load_checkpoint
from mlomae.common.errors import DataError, TrainingError
from mlomae.common.random_keys import root_key
from mlomae.data import build_scenes
from mlomae.models.places import sha256

LEARNING = {"train__iterations": 60, "train__log_interval": 20, "train__checkpoint_interval": 60, "optim__warmup": 0.1}


@pytest.fixture(scope="module")
def learned(one_thread: None, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder of a run of 60 iterations by the command line, its backbone); beside it a folder ``records``."""
    folder = tmp_path_factory.mktemp("learned")
    backbone = folder / "iter_7.pth"
    shape = {"depth": 4, "img_size": 16, "embed_dim": 16}
    write_checkpoint(backbone, **shape)
    content = torch.load(backbone, weights_only=True)
    content["config"] |= {"method": "MLO-MAE", "name": "pretraining", "seed": 3, "levels": {"lower_steps": 2}}
    content["config"] = {**tiny.values(), **content["config"]}
    content["config"]["data"] = {"train": {"type": "textures"}, "batch_size": 8}
    content["clock"] = {"wall": 2.0, "cpu": 1.0}
    torch.save(content, backbone)
    config = seg_runs.write_config(folder / "config.py", scenes, **LEARNING)
    command = [str(config), "--weights", str(backbone), "--work-dir", str(folder / "run")]
    assert main([*command, "--records", str(folder / "records"), "--cfg-options", "backbone.model=None"]) == 0
    return folder / "run", backbone


def test_the_transfer_learns(learned: tuple[Path, Path]) -> None:
    """Squares told by their colour, from a random ViT of width 16: far above the 20 percent of a guess."""
    metrics = json.loads((learned[0] / "record.json").read_text())["metrics"]
    assert metrics["aAcc"] > 60
    assert metrics["mIoU"] > 40


def test_what_a_run_leaves_agrees_with_itself(learned: tuple[Path, Path], scenes: Path) -> None:
    work, backbone = learned
    record = json.loads((work / "record.json").read_text())
    records.validate_record(record, "record.json")
    evidence = read_evidence(work.parent / "records")
    assert list(evidence.records.values()) == [record]
    assert [t.sums.whole() for t in evidence.tested.values()] == [pytest.approx(record["metrics"]["mIoU"])]
    assert [t.run for t in evidence.tested.values()] == ["MLO-MAE, tiny, seed 3"]
    assert record["task"] == "segmentation"
    assert (record["method"], record["seed"]) == ("MLO-MAE", 3), "taken from the pretraining"
    assert record["config"]["backbone"]["weights"]["method"] == "MLO-MAE"
    assert record["pretrained"]["sha256"] == sha256(backbone)
    assert record["pretrained"]["images_seen"] == 7 * 2 * 8
    assert record["images_seen"]["lower"] == 60 * seg_runs.BATCH
    assert record["outer_iterations"] == 60
    assert 0 < record["cpu_s"] < 60
    assert str(scenes) not in json.dumps(record), "no folder of this machine"
    assert record["train_source"].endswith(f"{scenes.name}, 24 images")

    with np.load(work / "pixel_counts.npz", allow_pickle=False) as file:
        areas = {name: file[name] for name in file.files}
    test = build_scenes(seg_runs.values(scenes)["data"]["test"])
    assert str(areas["format"]) == "mlomae segmentation areas 1"
    assert str(areas["test_set"]) == test.fingerprint()
    assert str(areas["config_hash"]) == record["config_hash"]
    assert areas["class_names"].tolist() == list(test.classes)
    assert areas["index"].tolist() == list(range(10))
    labels = [test.labels(i).numpy() for i in range(10)]
    true = [np.bincount(image[image != 255], minlength=5) for image in labels]
    assert areas["true"].tolist() == [row.tolist() for row in true]
    assert areas["predicted"].sum(axis=1).tolist() == areas["true"].sum(axis=1).tolist()

    total = {name: areas[name].sum(axis=0) for name in ("intersect", "predicted", "true")}
    iou = 100 * total["intersect"] / (total["predicted"] + total["true"] - total["intersect"])
    metrics = record["metrics"]
    assert metrics["mIoU"] == pytest.approx(iou.mean(), rel=1e-12)
    assert metrics["mAcc"] == pytest.approx(100 * (total["intersect"] / total["true"]).mean(), rel=1e-12)
    assert metrics["aAcc"] == pytest.approx(100 * total["intersect"].sum() / total["true"].sum(), rel=1e-12)
    assert metrics["class_iou"] == pytest.approx(dict(zip(test.classes, iou.tolist(), strict=True)), abs=1e-4)
    assert metrics["loss"] > 0


def predictions(scenes: Path, work: Path, backbone: Path) -> list[np.ndarray]:
    """Of the test images, by the segmentor of a run's last checkpoint."""
    weights = {"backbone__weights": str(backbone), "backbone__model": None}
    config = seg_runs.config(scenes, **LEARNING, **weights)
    segmentor: Any = build_segmentor(config, seg_runs.CLASSES)[0]
    segmentor.load_state_dict(load_checkpoint(list_checkpoints(work)[-1], "mlomae-transfer/1")["modules"]["segmentor"])
    segmentor.eval()
    test = build_scenes(config.data.test)
    predicted = []
    for batch in seg_runs.eval_loader(config, test):
        with torch.no_grad():
            predicted.append(segmentor.test_step(batch)[0].pred_sem_seg.data[0].numpy())
    return predicted


def test_the_checkpoint_predicts_what_was_measured_and_drawn(learned: tuple[Path, Path], scenes: Path) -> None:
    work, backbone = learned
    predicted = predictions(scenes, work, backbone)
    test = build_scenes(seg_runs.values(scenes)["data"]["test"])
    pixels = [
        torch.cat([torch.from_numpy(x).flatten().long() for x in images])
        for images in (predicted, [test.labels(i).numpy() for i in range(10)])
    ]
    jaccard = MulticlassJaccardIndex(seg_runs.CLASSES, ignore_index=255)(*pixels)
    record = json.loads((work / "record.json").read_text())
    assert record["metrics"]["mIoU"] == pytest.approx(100 * float(jaccard), rel=1e-6)

    # as anyone would: the values of files, 0 where annotations have no label
    files = sorted((work / "predictions").iterdir())
    assert [path.name for path in files] == [Path(test.path(i)).name for i in range(10)]
    written = [np.array(Image.open(path)) for path in files]
    annotated = [np.array(Image.open(test.annotation_path(i))) for i in range(10)]
    known = np.concatenate([image[true > 0] for image, true in zip(written, annotated, strict=True)])
    truth = np.concatenate([true[true > 0] for true in annotated])
    assert record["metrics"]["mIoU"] == pytest.approx(100 * jaccard_score(truth, known, average="macro"), rel=1e-9)
    assert all(np.array_equal(image, labels + 1) for image, labels in zip(written, predicted, strict=True))
    assert jaccard_score(truth, np.roll(known, 1), average="macro") < 0.5  # mutation

    shown = sorted((work / "overlays").iterdir())
    assert [path.name for path in shown] == ["000000.png", "000005.png"], "evenly spaced"
    colours = palette(seg_runs.CLASSES)
    for i, path in zip((0, 5), shown, strict=True):
        picture = Image.open(path)
        height, width = predicted[i].shape
        factor = 256 // height
        assert picture.size == (factor * (3 * width + 8), factor * height)
        small = np.array(picture)[::factor, ::factor].astype(int)
        image = test.image(i).permute(1, 2, 0).numpy()
        assert np.array_equal(small[:, :width], image)
        for k, labels in enumerate((test.labels(i).numpy(), predicted[i])):
            part = small[:, (k + 1) * (width + 4) :][:, :width]
            assert np.abs(part - (0.4 * image + 0.6 * colours[labels])).max() <= 1


def test_colours_tell_classes_apart() -> None:
    for classes in (2, 11, 150, 255):
        used = palette(classes)[:classes]
        assert len(np.unique(used, axis=0)) >= min(classes, 150)
        assert not palette(classes)[255].any()
    assert np.array_equal(palette(11)[:11], palette(150)[:11]), "a class keeps its colour"


def test_the_training_step_is_mmsegs_own(scenes: Path, tmp_path: Path) -> None:
    """One iteration of SGD at a constant rate: the gradient of the sum of mmseg's losses, by hand."""
    changes = {"optim__type": "sgd", "optim__lr": 0.1, "optim__momentum": 0.0, "optim__layer_decay": 1.0}
    changes |= {"optim__weight_decay": 0.0, "optim__warmup": 0.0, "optim__min_lr": 0.1, "train__iterations": 1}
    config = seg_runs.config(scenes, **changes)
    record = run_transfer(config, tmp_path)
    after = load_checkpoint(checkpoint_path(tmp_path, 1), "mlomae-transfer/1")["modules"]["segmentor"]

    segmentor: Any = build_segmentor(config, seg_runs.CLASSES)[0]
    data = segmentor.data_preprocessor(
        next(iter(seg_runs.train_loader(config, build_scenes(config.data.train)))), training=True
    )
    torch.manual_seed(root_key(0, "drop", 0, 0))
    losses = segmentor.loss(data["inputs"], data["data_samples"])
    total = losses["decode.loss_ce"] + losses["aux.loss_ce"]
    total.backward()
    for name, parameter in segmentor.named_parameters():
        torch.testing.assert_close(after[name], parameter.data - 0.1 * parameter.grad, rtol=1e-5, atol=1e-7)
    assert record["metrics"]["loss"] == pytest.approx(float(total), rel=1e-6)


# --- precision --------------------------------------------------------------------------------------------------------


def test_bf16_is_active_in_training_and_evaluation_stays_exact(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[tuple[str, bool], set[torch.dtype]] = {}
    labels: set[torch.dtype] = set()
    build = TransferStep.__init__

    def watched(self: TransferStep, segmentor: Any, *given: Any, **options: Any) -> None:
        build(self, segmentor, *given, **options)
        watch = {"block": segmentor.backbone.vit.blocks[3].mlp.fc2, "head": segmentor.decode_head.conv_seg}
        for name, layer in watch.items():
            layer.register_forward_hook(
                lambda module, given, out, name=name: seen.setdefault((name, module.training), set()).add(out.dtype)
            )
        by_feat = segmentor.decode_head.loss_by_feat

        def loss(logits: Any, samples: Any) -> Any:
            labels.update(sample.gt_sem_seg.data.dtype for sample in samples)
            found = by_feat(logits, samples)
            assert found["loss_ce"].dtype == torch.float32
            return found

        segmentor.decode_head.loss_by_feat = loss

    monkeypatch.setattr(TransferStep, "__init__", watched)
    run_transfer(seg_runs.config(scenes, train__amp="bf16"), tmp_path)
    assert seen == {
        **{(name, True): {torch.bfloat16} for name in ("block", "head")},
        **{(name, False): {torch.float32} for name in ("block", "head")},
    }
    assert labels == {torch.int64}
    state = load_checkpoint(checkpoint_path(tmp_path, 6), "mlomae-transfer/1")
    assert {v.dtype for v in state["modules"]["segmentor"].values() if v.is_floating_point()} == {torch.float32}


def test_bf16_that_is_not_active_is_an_error(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransferStep, "autocast", lambda self: nullcontext())
    with pytest.raises(TrainingError, match=r"train\.amp='bf16' is not active") as error:
        run_transfer(seg_runs.config(scenes, train__amp="bf16"), tmp_path)
    one_line(error.value)


def test_a_loss_that_is_not_finite_ends_the_run_before_a_checkpoint(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite .*start again .* with a lower optim\.lr") as error:
        run_transfer(seg_runs.config(scenes, optim__type="sgd", optim__lr=9e15), tmp_path)
    one_line(error.value)
    assert not list_checkpoints(tmp_path)


# --- what is refused --------------------------------------------------------------------------------------------------


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(TransferStep, "__call__", fail)


def test_leaks_and_other_classes_are_refused(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_training(monkeypatch)
    other = seg_runs.write_data(tmp_path / "other")
    (other / "classes.txt").write_text("grey\nred\ngreen\nblue\nwhite\n")
    one = seg_runs.write_data(tmp_path / "one")
    for path in one.glob("annotations/*/*.png"):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8)).save(path)
    (one / "classes.txt").write_text("thing\n")
    copied = seg_runs.write_data(tmp_path / "copied")
    for kind in ("images", "annotations"):
        for i in range(3):
            source = copied / kind / "validation" / f"{i:06d}.png"
            (copied / kind / "training" / f"{100 + i:06d}.png").write_bytes(source.read_bytes())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"data__train__split": "validation"}, "evaluation images would reach training"),
        ({"data__train__root": str(copied), "data__test__root": str(copied)}, "3 of 10 evaluation images"),
        ({"data__test__root": str(other)}, r"classes of training .* differ: only scene_folder training .* has white"),
        ({"data__train__root": str(one), "data__test__root": str(one)}, "has the class 'thing' alone"),
    ]
    for changes, said in cases:
        with pytest.raises(DataError, match=said) as error:
            run_transfer(seg_runs.config(scenes, **changes), tmp_path / "work")
        one_line(error.value)
        assert not (tmp_path / "work").exists()


def test_the_order_of_classes_counts(scenes: Path, tmp_path: Path) -> None:
    other = seg_runs.write_data(tmp_path / "other")
    (other / "classes.txt").write_text("red\ngrey\ngreen\nblue\nyellow\n")
    with pytest.raises(DataError, match=r"have them in another order"):
        run_transfer(seg_runs.config(scenes, data__test__root=str(other)), tmp_path / "work")


def test_no_picture_is_drawn_if_none_is_wanted(scenes: Path, tmp_path: Path) -> None:
    run_transfer(seg_runs.config(scenes, overlays=0, train__iterations=1), tmp_path)
    assert not (tmp_path / "overlays").exists()
    assert (tmp_path / "pixel_counts.npz").is_file()
