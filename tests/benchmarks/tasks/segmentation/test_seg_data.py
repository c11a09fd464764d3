"""Augmented images are functions of (seed, epoch, image); labels are the classes, 255 where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import seg_runs
import torch
from PIL import Image
from run_samples import differences, one_line
from torch import Tensor

from benchmarks.tasks.segmentation import data as module
from benchmarks.tasks.segmentation.data import ScenePairs
from benchmarks.tasks.segmentation.model import build_segmentor
from mlomae.backbones import batches
from mlomae.common.errors import ConfigError, DataError
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD, Scenes, build_scenes

PARTS = {
    "resize": seg_runs.AUGMENT[0],
    "crop": seg_runs.AUGMENT[1],
    "flip": seg_runs.AUGMENT[2],
    "colours": seg_runs.AUGMENT[3],
}


def source(scenes: Path, split: str = "training") -> Scenes:
    return build_scenes({"type": "scene_folder", "root": str(scenes), "split": split})


def train(scenes: Path, **changes: Any) -> Any:
    return seg_runs.train_loader(seg_runs.config(scenes, **changes), source(scenes))


def content(batch: dict[str, Any]) -> list[tuple[int, Tensor, Tensor]]:
    """(index, image, labels) of every item."""
    pairs = zip(batch["inputs"], batch["data_samples"], strict=True)
    return [(sample.index, image, sample.gt_sem_seg.data) for image, sample in pairs]


def all_of(loader: Any) -> list[Any]:
    return [content(batch) for batch in loader]


@pytest.fixture(scope="module")
def whole(one_thread: None, scenes: Path) -> list[Any]:
    return all_of(train(scenes))


def test_batches_have_the_documented_shapes(whole: list[Any], scenes: Path) -> None:
    assert [len(batch) for batch in whole] == [seg_runs.BATCH] * 6
    for index, image, labels in whole[0]:
        assert (image.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert labels.shape == (1, *image.shape[1:])
        assert 0 <= index < 24
    for epoch in (whole[:3], whole[3:]):
        assert sorted(index for batch in epoch for index, *_ in batch) == list(range(24))
    assert [i for i, *_ in whole[0]] != [i for i, *_ in whole[3]], "every epoch has an order of its own"


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_global_generators_change_nothing(workers: int, whole: list[Any], scenes: Path) -> None:
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    state = torch.get_rng_state()
    assert differences(all_of(train(scenes, data__num_workers=workers)), whole) == []
    assert torch.equal(torch.get_rng_state(), state), "and they are left as they were"


@pytest.mark.parametrize("iterations", [1, 4, 6])
def test_a_run_may_end_within_an_epoch(iterations: int, whole: list[Any], scenes: Path) -> None:
    loader = train(scenes, train__iterations=iterations)
    assert len(loader) == iterations
    assert differences(all_of(loader), whole[:iterations]) == []


@pytest.mark.parametrize("start", [1, 3, 5])
def test_a_start_in_the_middle_gives_the_same_batches(start: int, whole: list[Any], scenes: Path) -> None:
    loader = train(scenes)
    items = list(loader.batch_sampler.starting_at(start))
    found = [[content(loader.collate_fn([loader.dataset[item]]))[0] for item in batch] for batch in items]
    assert differences(found, whole[start:]) == []


def test_two_ranks_together_see_the_batches_of_one_process(
    whole: list[Any], scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    for rank in range(2):
        monkeypatch.setattr(batches, "get_dist_info", lambda rank=rank: (rank, 2))
        parts.append(all_of(train(scenes)))
    assert differences([a + b for a, b in zip(*parts, strict=True)], whole) == []


def test_evaluation_is_dealt_out_whole(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, test = seg_runs.config(scenes), source(scenes, "validation")
    for world in (1, 3, 16):
        seen = []
        for rank in range(world):
            monkeypatch.setattr(batches, "get_dist_info", lambda rank=rank, world=world: (rank, world))
            seen += [content(batch)[0][0] for batch in seg_runs.eval_loader(config, test)]
        assert seen == list(range(seg_runs.COUNTS["validation"]))


def drawn(pairs: ScenePairs, item: Any) -> tuple[Tensor, Tensor]:
    packed = pairs[item]
    return packed["inputs"], packed["data_samples"].gt_sem_seg.data


@pytest.mark.parametrize("part", PARTS)
def test_every_transform_is_a_function_of_seed_epoch_and_image(part: str, scenes: Path) -> None:
    def pairs(seed: int) -> ScenePairs:
        return ScenePairs(source(scenes), [PARTS[part]], (64, 64), seed=seed)

    def several(seed: int, epoch: int) -> list[Any]:
        """Of several images: the flip of one is a coin."""
        return [drawn(pairs(seed), (epoch, i)) for i in range(8)]

    once = several(0, 0)
    torch.rand(7)
    np.random.rand(7)  # noqa: NPY002
    assert differences(several(0, 0), once) == []
    backwards = pairs(0)
    assert differences([drawn(backwards, (0, i)) for i in reversed(range(8))][::-1], once) == []
    if part != "crop":  # of images of its size
        for other in (several(1, 0), several(0, 1)):
            assert differences(other, once)


def test_without_a_seed_for_each_item_the_order_would_matter(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: the transforms draw from wherever the generators are."""

    @contextmanager
    def unseeded(key: int) -> Iterator[None]:
        yield

    monkeypatch.setattr(module, "seeded", unseeded)
    with pytest.raises(AssertionError):
        test_every_transform_is_a_function_of_seed_epoch_and_image("flip", scenes)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    first = all_of(train(scenes))
    assert differences(all_of(train(scenes)), first)


# --- labels and pixels ------------------------------------------------------------------------------------------------


def test_labels_follow_their_pixels_through_the_transforms(scenes: Path, tmp_path: Path) -> None:
    """Images whose colour tells the class: it still does after resizing, cropping and flipping, off the edges."""
    root = tmp_path / "told"
    colours = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], dtype=np.uint8)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(4):
            values = np.random.default_rng((i, len(split))).integers(0, 5, (4, 5)).repeat(8, 0).repeat(8, 1)
            Image.fromarray(colours[values]).save(root / "images" / split / f"{i}.png")
            Image.fromarray(values.astype(np.uint8)).save(root / "annotations" / split / f"{i}.png")
    (root / "classes.txt").write_text("red\ngreen\nblue\nyellow\n")
    steps = [{**PARTS["resize"], "scale": (80, 32), "ratio_range": (0.8, 1.25)}, PARTS["crop"], PARTS["flip"]]
    pairs = ScenePairs(source(root), steps, (16, 16))
    agree = total = 0
    for epoch in range(10):
        for i in range(4):
            image, labels = drawn(pairs, (epoch, i))
            rgb = image.flip(0).long()
            nearest = (rgb[None] - torch.from_numpy(colours)[:, :, None, None].long()).abs().sum(1).argmin(0)
            agree += int((labels[0] == torch.where(nearest == 0, 255, nearest - 1)).sum())
            total += labels.numel()
            assert set(labels.unique().tolist()) <= {0, 1, 2, 3, 255}
    assert agree / total > 0.9


def test_labels_after_the_whole_pipeline_are_classes_or_ignored(whole: list[Any], scenes: Path) -> None:
    """Value 0 of a file is 255 here, value 1 is class 0; a crop beyond the image is padded with 255, its pixels with
    the mean colour."""
    assert {int(v) for batch in whole for *_, labels in batch for v in labels.unique()} == {0, 1, 2, 3, 4, 255}
    raw = source(scenes)
    values = np.array(Image.open(raw.annotation_path(1))).astype(int)
    _, labels = drawn(ScenePairs(raw, [], (16, 16)), 1)
    assert np.array_equal(labels[0].numpy(), np.where(values == 0, 255, values - 1))

    segmentor: Any = build_segmentor(seg_runs.config(scenes), seg_runs.CLASSES)[0]
    padded = 0
    for batch in train(scenes):
        before = content(batch)
        sizes = [image.shape[1:] for _, image, _ in before]
        data = segmentor.data_preprocessor(batch, training=True)
        assert data["inputs"].shape == (seg_runs.BATCH, 3, 16, 16)
        for (height, width), (_, image, labels), pixels, sample in zip(
            sizes, before, data["inputs"], data["data_samples"], strict=True
        ):
            truth = sample.gt_sem_seg.data
            assert truth.shape == (1, 16, 16)
            assert torch.equal(truth[:, :height, :width], labels)
            outside = torch.ones(16, 16, dtype=torch.bool)
            outside[:height, :width] = False
            padded += int(outside.sum())
            assert set(truth[0, outside].tolist()) <= {255}
            assert not pixels[:, outside].any()
            mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
            expected = (image.flip(0) / 255 - mean) / std
            torch.testing.assert_close(pixels[:, :height, :width], expected, atol=1e-5, rtol=0)
    assert padded > 100


def test_ignored_pixels_change_no_loss(scenes: Path) -> None:
    """Logits may be anything where there is no label; where there is one, they count."""
    segmentor: Any = build_segmentor(seg_runs.config(scenes), seg_runs.CLASSES)[0]
    batch = next(iter(train(scenes)))
    data = segmentor.data_preprocessor(batch, training=True)
    truth = torch.stack([sample.gt_sem_seg.data for sample in data["data_samples"]])
    logits = torch.randn(len(truth), seg_runs.CLASSES, 16, 16, generator=torch.Generator().manual_seed(0))
    other = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)) * 10

    def loss(given: Tensor) -> list[float]:
        found = segmentor.decode_head.loss_by_feat(given, data["data_samples"])
        return [float(value) for value in found.values()]

    ignored = truth == 255
    assert 0 < ignored.sum() < ignored.numel()
    assert loss(torch.where(ignored, other, logits)) == loss(logits)
    assert loss(torch.where(ignored, logits, other)) != loss(logits)


def test_evaluation_sees_labels_at_the_size_of_the_file(scenes: Path) -> None:
    config = seg_runs.config(scenes, data__evaluate=[{"type": "Resize", "scale": (40, 24), "keep_ratio": True}])
    test = source(scenes, "validation")
    for batch in seg_runs.eval_loader(config, test):
        ((index, image, labels),) = content(batch)
        assert torch.equal(labels[0], test.labels(index).long())
        sample = batch["data_samples"][0]
        assert sample.ori_shape == tuple(labels.shape[1:])
        assert sample.img_shape == tuple(image.shape[1:])
        assert image.shape[1] > labels.shape[1]
        assert sample.img_path == test.path(index)


# --- what is refused --------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[list[Any], str]] = {
    "unknown": ([{"type": "RandomCropp"}], "'data.augment' is refused by mmseg .*RandomCropp"),
    "path": (
        [{"type": "RandomApply", "transforms": [{"type": "os.mkdir"}]}],
        "mmseg .*'os.mkdir' is not in a registry",
    ),
    "no type": ([{"crop_size": (16, 16)}], "'data.augment' is refused by mmseg"),
    "no dict": (["RandomFlip"], "'data.augment' is refused by mmseg"),
    "option": ([{"type": "RandomFlip", "probability": 0.5}], "'data.augment' is refused by mmseg .*probability"),
    "value": ([{"type": "RandomCrop", "crop_size": (0, 16)}], r"'data.augment' is refused by mmseg \(AssertionError\)"),
    "loading": ([{"type": "LoadAnnotations"}], "the transforms fail on '.*000000.png' .*; change data.augment"),
    "packing": ([{"type": "PackSegInputs"}], "leave no image of '.*000000.png'; change data.augment"),
    "too large": ([{"type": "Resize", "scale": (20, 20)}], r"leave 20x20 pixels of .* more than .*img_size \(16x16\)"),
    "too large crop": (
        [{"type": "Resize", "scale": (32, 32)}, {"type": "RandomCrop", "crop_size": (16, 20)}],
        r"leave 16x20 pixels of .* more than .*img_size \(16x16\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_transforms_are_one_line_before_anything_is_trained(case: str, scenes: Path) -> None:
    steps, said = WRONG[case]
    with pytest.raises(ConfigError, match=said) as error:
        train(scenes, data__augment=steps)
    one_line(error.value)


def test_wrong_transforms_of_evaluation_are_one_line_before_the_training_too(scenes: Path) -> None:
    cases = {"RandomCropp": "'data.evaluate' is refused by mmseg", "RandomCrop": "fail on .*; change data.evaluate"}
    for name, said in cases.items():
        config = seg_runs.config(scenes, data__evaluate=[{"type": name, "crop_size": (8, 8), "cat_max_ratio": 0.5}])
        with pytest.raises(ConfigError, match=said) as error:
            seg_runs.eval_loader(config, source(scenes, "validation"))
        one_line(error.value)


def test_an_image_that_is_larger_than_the_first_is_one_line_too(scenes: Path) -> None:
    """Without a crop, torch would fail to stack images of several sizes."""
    raw = source(scenes)
    large = SimpleNamespace(
        classes=raw.classes,
        image=lambda i: torch.zeros(3, 16, 16 + i, dtype=torch.uint8),
        labels=lambda i: torch.zeros(16, 16 + i, dtype=torch.uint8),
        path=raw.path,
    )
    pairs = ScenePairs(large, [], (16, 16))  # type: ignore[arg-type]
    pairs[0]
    with pytest.raises(ConfigError, match=r"leave 16x17 pixels of .*crop in data\.augment") as error:
        pairs[1]
    one_line(error.value)


def test_batches_that_do_not_fit_are_one_line(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="batch_size 25 exceeds the 24 training images"):
        train(scenes, data__batch_size=25)
    monkeypatch.setattr(batches, "get_dist_info", lambda: (0, 3))
    with pytest.raises(ConfigError, match="batch_size 8 is not a multiple of 3 processes"):
        train(scenes)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(workers: int, scenes: Path, tmp_path: Path) -> None:
    broken = seg_runs.write_data(tmp_path / "scenes")
    path = broken / "images" / "training" / "000005.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"cannot decode .*000005\.png") as error:
        all_of(train(broken, data__num_workers=workers))
    one_line(error.value)
