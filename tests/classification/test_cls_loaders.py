"""Loaders of the classification benchmark: the same batches for any number of workers, ranks and interruptions."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import cls_runs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mlomae.backbones import batches as module
from mlomae.backbones.batches import EpochBatches, ImageLoader, evaluation_loader
from mlomae.classification import loaders
from mlomae.classification.augment import eval_transform, train_transform
from mlomae.classification.loaders import LabelledImages
from mlomae.classification.run import least_side
from mlomae.common.errors import ConfigError, DataError
from mlomae.data import Stream, Textures, build_source
from mlomae.data.augment import Plain
from mlomae.data.sets.own_images import ImageFolder

Batch = dict[str, Any]
N, EPOCHS = 22, 3
SOURCE = Textures(count=N, size=16)
TRANSFORM = train_transform((16, 16))
PER_EPOCH = N // 4


def train(
    seed: int = 5, name: str = "train", start_iteration: int = 0, num_workers: int = 0, **changes: Any
) -> list[Batch]:
    images = LabelledImages(SOURCE, TRANSFORM, seed=seed, name=name)
    ranks = changes.pop("rank", 0), changes.pop("world_size", 1)
    with mock.patch.object(module, "get_dist_info", return_value=ranks):
        batches = EpochBatches(images, **({"batch_size": 4, "epochs": EPOCHS} | changes)).starting_at(start_iteration)
    return list(ImageLoader(images, batch_sampler=batches, num_workers=num_workers))


def eval_loader(
    source: Any, transform: Any, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0
) -> ImageLoader:
    images = LabelledImages(source, transform, name="eval")
    with mock.patch.object(module, "get_dist_info", return_value=(rank, world_size)):
        return evaluation_loader(images, batch_size, num_workers=num_workers)


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x) for x, y in zip(a, b, strict=True)
    )


def indices(batches: list[Batch]) -> list[int]:
    return torch.cat([batch["index"] for batch in batches]).tolist()


@pytest.fixture(scope="module")
def whole() -> list[Batch]:
    return train()


def test_large_photos_are_decoded_smaller_where_the_crops_stay_large(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.effect_noise((400, 320), 50).convert("RGB").save(tmp_path / "train" / "a" / "0.jpg")
    source = build_source({"type": "imagefolder", "root": str(tmp_path), "split": "train"})
    sizes: list[tuple[int, int]] = []

    def transform(picture: Image.Image) -> torch.Tensor:
        sizes.append(picture.size)
        return torch.zeros(3, 8, 8)

    for least in (0, 321, 320, 160, 81, 80, 40, 1):
        LabelledImages(source, transform, least_side=least)[0]
    assert [width for width, _ in sizes] == [400, 400, 400, 200, 200, 100, 50, 50]
    config = cls_runs.config(data__augment={"type": "crop_flip", "scale": (0.25, 1.0), "ratio": (1.0, 1.0)})
    assert least_side(config) == 0
    config.data.reduced_decoding = True
    assert least_side(config) == 2 * 16 / 0.5


def test_batches_have_the_documented_shapes(whole: list[Batch]) -> None:
    assert len(whole) == EPOCHS * PER_EPOCH
    assert whole[0]["image"].shape == (4, 3, 16, 16)
    assert whole[0]["image"].dtype == torch.float32
    for batch in whole:
        assert batch.keys() == {"image", "label", "index"}
        assert batch["label"].dtype == batch["index"].dtype == torch.int64
        assert batch["label"].tolist() == SOURCE.labels[batch["index"].numpy()].tolist()


@pytest.mark.parametrize("start", [1, PER_EPOCH, PER_EPOCH + 2, EPOCHS * PER_EPOCH])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_start_in_the_middle_gives_the_same_batches(whole: list[Batch], start: int, workers: int) -> None:
    torch.rand(3)  # the state of the global generators must not matter
    assert same(train(start_iteration=start, num_workers=workers), whole[start:])


def test_workers_do_not_change_the_batches(whole: list[Batch]) -> None:
    assert same(train(num_workers=2), whole)


def test_two_ranks_together_see_the_batches_of_one_process(whole: list[Batch]) -> None:
    first, second = (train(rank=rank, world_size=2) for rank in range(2))
    joined = [{k: torch.cat([a[k], b[k]]) for k in a} for a, b in zip(first, second, strict=True)]
    assert same(joined, whole)


@pytest.mark.parametrize("broken", ["unseeded", "key without epoch", "order of a generator"])
def test_mutations_break_the_equality(whole: list[Batch], broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "unseeded":
        monkeypatch.setattr(loaders, "seeded", lambda key: nullcontext())
    elif broken == "key without epoch":
        right = loaders.root_key
        monkeypatch.setattr(loaders, "root_key", lambda seed, name, epoch, *rest: right(seed, name, 0, *rest))
    else:
        generator = torch.Generator().manual_seed(0)
        monkeypatch.setattr(LabelledImages, "order", lambda self, epoch: torch.randperm(N, generator=generator))
    if broken == "key without epoch":  # each epoch would show an image in the same way
        reference = train()
        assert same(train(start_iteration=7), reference[7:])
        assert not same(reference, whole)
    else:
        reference = train()
        assert not same(train(start_iteration=7), reference[7:])


def test_epochs_show_each_image_once_in_a_new_order_and_augmented_anew(whole: list[Batch]) -> None:
    epochs = [whole[e * PER_EPOCH : (e + 1) * PER_EPOCH] for e in range(EPOCHS)]
    orders = [indices(epoch) for epoch in epochs]
    for order in orders:
        assert len(set(order)) == len(order) == PER_EPOCH * 4
        assert set(order) <= set(range(N))
    assert orders[0] != orders[1]
    views: list[dict[int, Tensor]] = [
        {int(i): image for batch in epoch for i, image in zip(batch["index"], batch["image"], strict=True)}
        for epoch in epochs[:2]
    ]
    common = views[0].keys() & views[1].keys()
    assert sum(torch.equal(views[0][i], views[1][i]) for i in common) <= 1


def test_seeds_and_names_change_everything(whole: list[Batch]) -> None:
    for changes in ({"seed": 6}, {"name": "other"}):
        assert indices(train(**changes)) != indices(whole)


def test_the_order_is_that_of_a_pretraining_stream(whole: list[Batch]) -> None:
    stream = Stream(SOURCE, None, Plain(16), seed=5, name="train")
    for epoch in range(EPOCHS):
        expected = stream.locate(epoch * N, N)[1][: PER_EPOCH * 4].tolist()
        assert indices(whole[epoch * PER_EPOCH : (epoch + 1) * PER_EPOCH]) == expected


@pytest.mark.parametrize(("count", "world_size"), [(30, 1), (30, 4), (7, 3), (2, 3)])
def test_evaluation_shows_each_image_once_in_order(count: int, world_size: int) -> None:
    source, transform = Textures(count=count, size=16), eval_transform((16, 16), 1.0)
    found = []
    for rank in range(world_size):
        loader = eval_loader(source, transform, 4, rank=rank, world_size=world_size, num_workers=rank % 2)
        assert len(loader.dataset) == count  # type: ignore[arg-type]
        found.append([batch for batch in loader])
    assert indices([b for batches in found for b in batches]) == list(range(count))
    sizes = [sum(len(b["index"]) for b in batches) for batches in found]
    assert max(sizes) - min(sizes) <= 1
    batch = next(b for batches in found for b in batches)
    expected = transform(Image.fromarray(source.image(int(batch["index"][0])).permute(1, 2, 0).numpy()))
    assert torch.equal(batch["image"][0], expected)


def test_no_loader_touches_the_global_generators() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(epochs=1, num_workers=1)
    list(eval_loader(SOURCE, eval_transform((16, 16), 1.0), batch_size=8))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 23}, "batch_size 23 exceeds the 22 training images"),
        ({"batch_size": 5, "world_size": 2}, "batch_size 5 is not a multiple of 2 processes"),
        ({"start_iteration": 16}, r"start_iteration 16 is outside 0\.\.15"),
    ],
)
def test_bad_options_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        train(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_one_line(tmp_path: Path, workers: int) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "val" / name / "0.png")
    (tmp_path / "val" / "dog" / "0.png").write_bytes(b"not an image")
    loader = eval_loader(
        ImageFolder(str(tmp_path), "val"), eval_transform((8, 8), 1.0), batch_size=1, num_workers=workers
    )
    with pytest.raises(DataError, match=r"^cannot decode .*dog/0.png") as error:
        list(loader)
    assert "\n" not in str(error.value)
