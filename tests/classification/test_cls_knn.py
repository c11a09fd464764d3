"""One k-NN: protocol knn and `mlomae evaluate` give the same number for the same weights and images."""

from pathlib import Path
from typing import Any

import cls_runs
import numpy as np
import pytest
import torch
from PIL import Image

from mlomae.classification.loaders import LabelledImages, eval_loader, extract, knn_loader
from mlomae.classification.run import build_model
from mlomae.common.errors import DataError
from mlomae.pretraining.evaluation import PlainBatches, extract_features
from mlomae.pretraining.load import evaluate_checkpoint, load_run

SEED, IMAGES = 3, {"train": 24, "test": 20}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Noise in four classes, pictures of any size and shape: the two sources of a transfer."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in IMAGES.items():
        for i in range(count):
            folder = root / split / "abcd"[i % 4]
            folder.mkdir(parents=True, exist_ok=True)
            height, width = generator.integers(17, 50, 2)
            Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return {split: {"type": "imagefolder", "root": str(root), "split": split} for split in IMAGES}


def test_both_commands_read_the_same_pixels_and_count_the_same_votes(data: dict[str, Any], tmp_path: Path) -> None:
    changes = {"data__train": data["train"], "data__eval": data["test"], "seed": SEED}
    checkpoint, before = cls_runs.pretrain(tmp_path / "pretrained", **changes)
    again = evaluate_checkpoint(tmp_path / "pretrained")
    assert again == {key: before["metrics"][key] for key in again}
    for pooling in ("cls", "avg"):
        config = cls_runs.config(
            protocol="knn",
            pooling=pooling,
            data={**data, "evaluate": {"crop_pct": 1.0}},
            seed=SEED,
            backbone={"weights": str(checkpoint), "img_size": 16},
        )
        assert cls_runs.run_transfer(config, tmp_path / pooling)["metrics"]["top1"] == again[f"knn_top1_{pooling}"]

    model, _ = build_model(config, 4)
    steps = cls_runs.opened(config)
    loaders = knn_loader(config, steps.test, steps.plain), eval_loader(config, steps.test, steps.plain)
    (rows, _, index), (others, _, _) = (extract(model, loader, "avg") for loader in loaders)
    batches = list(PlainBatches(steps.test, 16))
    expected, _ = extract_features(load_run(checkpoint).model.mae.encoder, batches)
    order = torch.cat([batch["index"] for batch in batches]).argsort()
    assert torch.equal(index, torch.arange(IMAGES["test"]))
    assert torch.equal(rows, expected[order, 16:])
    assert (rows - others).abs().max() > 1e-2, "too blunt: the other protocols' pixels give the same features"


@pytest.mark.parametrize("change", [{"img_size": [16, 24]}, {"interpolation": "bilinear"}])
def test_what_evaluate_does_not_know_is_cut_as_by_the_other_protocols(
    change: dict[str, Any], data: dict[str, Any]
) -> None:
    evaluate = {"crop_pct": 1.0} | {k: v for k, v in change.items() if k == "interpolation"}
    config = cls_runs.config(
        protocol="knn", data={**data, "evaluate": evaluate}, backbone__img_size=change.get("img_size", 16)
    )
    steps = cls_runs.opened(config)
    (batch, *_) = knn_loader(config, steps.test, steps.plain)
    assert torch.equal(batch["image"][3], LabelledImages(steps.test, steps.plain)[3]["image"])


def test_more_neighbours_than_images_are_lowered_with_a_word_and_in_the_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = cls_runs.run_transfer(cls_runs.config(protocol="knn", knn__k=97), tmp_path / "few")["metrics"]
    assert "knn.k is 97, lowered to the number of training images, 96" in caplog.text
    all_of_them = cls_runs.run_transfer(cls_runs.config(protocol="knn", knn__k=96), tmp_path / "all")["metrics"]
    assert few == {**all_of_them, "knn_k": 96}


@pytest.mark.parametrize("protocol", ["finetune", "linear", "knn"])
def test_a_training_set_of_one_class_is_refused(protocol: str, tmp_path: Path, data: dict[str, Any]) -> None:
    for split in IMAGES:
        (tmp_path / split).mkdir()
        (tmp_path / split / "a").symlink_to(Path(data[split]["root"]) / split / "a")
    sources = {split: {**data[split], "root": str(tmp_path)} for split in IMAGES}
    with pytest.raises(DataError, match="has the class 'a' alone; give two classes or more") as error:
        cls_runs.run_transfer(cls_runs.config(protocol=protocol, data=sources), tmp_path / "work")
    assert "\n" not in str(error.value)
