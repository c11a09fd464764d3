"""mIoU, mAcc and aAcc: those of torchmetrics and of mmseg, for any split of the images over calls and ranks."""

import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from numpy.typing import NDArray
from PIL import Image
from run_samples import differences, one_line
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from benchmarks.tasks.segmentation.metric import SceneMetric, as_png, summarise
from benchmarks.tasks.segmentation.pixel_counts import class_ious
from mlomae.backbones import training
from mlomae.common.errors import DataError
from mlomae.data.scenes import MOST_CLASSES

IGNORE = 255
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Prediction and truth, (H, W)."""


def pairs(seed: int, classes: int, count: int = 4, absent: Sequence[int] = ()) -> list[Pair]:
    """Images of several sizes, a third of whose pixels is right, with ignored pixels; ``absent``: never there."""
    rng = np.random.default_rng(seed)
    there = [c for c in range(classes) if c not in absent]
    found = []
    for _ in range(count):
        size = tuple(rng.integers(3, 9, 2))
        true = rng.choice([*there, IGNORE], size).astype(np.uint8)
        guess = rng.integers(0, classes, size).astype(np.uint8)
        found.append((np.where((rng.random(size) < 0.3) & (true != IGNORE), true, guess).astype(np.uint8), true))
    return found


def sample(index: int, pair: Pair) -> SegDataSample:
    predicted, true = (torch.from_numpy(part)[None].long() for part in pair)
    built = SegDataSample(metainfo={"index": index, "img_path": f"image {index}"})
    built.set_data({"pred_sem_seg": PixelData(data=predicted), "gt_sem_seg": PixelData(data=true)})
    return built


def measure(images: Sequence[Pair], classes: int, order: Sequence[int] | None = None, keep: Any = ()) -> SceneMetric:
    """After all images, in any order, one or more at a time."""
    metric = SceneMetric(classes, keep)
    order = range(len(images)) if order is None else order
    for i in order:
        metric.process([sample(i, images[i])])
    metric.evaluate(len(images))
    return metric


def flat(images: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels of all images in one row: predictions, truth."""
    predicted, true = (torch.from_numpy(np.concatenate([pair[k].ravel() for pair in images])).long() for k in (0, 1))
    return predicted, true


def by_torchmetrics(images: Sequence[Pair], classes: int) -> dict[str, float]:
    """Means over the classes that have the number: an IoU if predicted or there, an accuracy if there."""
    options: dict[str, Any] = {"num_classes": classes, "ignore_index": IGNORE}
    predicted, true = flat(images)
    iou, right = (
        kind(average="none", **options)(predicted, true) for kind in (MulticlassJaccardIndex, MulticlassAccuracy)
    )
    valid = true != IGNORE
    there = torch.bincount(true[valid], minlength=classes) > 0
    either = there | (torch.bincount(predicted[valid], minlength=classes) > 0)
    return {
        "mIoU": 100 * float(iou[either].mean()),
        "mAcc": 100 * float(right[there].mean()),
        "aAcc": 100 * float(MulticlassAccuracy(average="micro", **options)(predicted, true)),
    }


@pytest.mark.parametrize("absent", [(), (0,), (1, 4)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_metrics_are_those_of_torchmetrics(seed: int, absent: Sequence[int]) -> None:
    images = pairs(seed, 6, absent=absent)
    found = measure(images, 6).summary
    expected = by_torchmetrics(images, 6)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert (found["n"], found["classes_without_pixels"]) == (4, len(absent))
    if not absent:  # its own mean, where no class is left out
        macro = MulticlassJaccardIndex(num_classes=6, ignore_index=IGNORE)(*flat(images))
        assert found["mIoU"] == pytest.approx(100 * float(macro), rel=1e-6)


def test_a_class_that_is_neither_there_nor_predicted_counts_in_no_mean() -> None:
    images = [(np.where(p == 2, 3, p).astype(np.uint8), t) for p, t in pairs(3, 5, absent=(2,))]
    metric = measure(images, 5)
    assert metric.summary["mIoU"] == pytest.approx(by_torchmetrics(images, 5)["mIoU"], rel=1e-6)
    macro = MulticlassJaccardIndex(num_classes=5, ignore_index=IGNORE)(*flat(images))  # it leaves such a class out too
    assert metric.summary["mIoU"] == pytest.approx(100 * float(macro), rel=1e-6)
    ious = class_ious(metric.counts)
    assert np.flatnonzero(np.isnan(ious)).tolist() == [2]
    assert float(np.nanmean(ious)) == pytest.approx(metric.summary["mIoU"], rel=1e-12)


def test_the_metrics_are_those_of_mmsegs_own_evaluator() -> None:
    images = pairs(4, 7, count=6)
    theirs = IoUMetric()
    theirs.dataset_meta = {"classes": [str(i) for i in range(7)]}
    theirs.process({}, [sample(i, pair).to_dict() for i, pair in enumerate(images)])
    ours = measure(images, 7).summary
    for name, value in theirs.evaluate(6).items():  # rounded to two places
        assert ours[name] == pytest.approx(value, abs=0.0051)


def test_ignored_pixels_do_not_count_whatever_is_predicted_there() -> None:
    images = pairs(5, 4)
    rng = np.random.default_rng(9)
    others = [
        (np.where(true == IGNORE, rng.integers(0, 4, true.shape), predicted).astype(np.uint8), true)
        for predicted, true in images
    ]
    assert any((a[0] != b[0]).any() for a, b in zip(images, others, strict=True))
    assert differences(vars(measure(images, 4).counts), vars(measure(others, 4).counts)) == []
    nothing = (np.zeros((3, 3), np.uint8), np.full((3, 3), IGNORE, np.uint8))
    with_empty = measure([*images, nothing], 4).summary
    assert {**with_empty, "n": 4} == measure(images, 4).summary


seeds = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, classes=st.integers(2, 8), count=st.integers(1, 6))
def test_areas_summed_over_images_are_those_of_all_pixels_together(seed: int, classes: int, count: int) -> None:
    images = pairs(seed, classes, count)
    predicted, true = (part.numpy().astype(np.uint8)[None] for part in flat(images))
    apart, together = measure(images, classes).summary, measure([(predicted, true)], classes).summary
    assert {**apart, "n": 1} == pytest.approx(together, rel=1e-12, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, order=st.permutations(range(6)), cuts=st.lists(st.integers(0, 6), min_size=1, max_size=3))
def test_any_order_and_any_split_over_ranks_gives_the_same(seed: int, order: list[int], cuts: list[int]) -> None:
    """Each rank evaluates a part, which may be empty, and all gather the parts of all."""
    images = pairs(seed, 4, 6)
    bounds = [0, *sorted(cuts), 6]
    ranks = [SceneMetric(4, keep=(1, 4)) for _ in bounds[1:]]
    for rank, first, last in zip(ranks, bounds, bounds[1:], strict=False):
        for i in order[first:last]:
            rank.process([sample(i, images[i])])
    parts = [list(rank.rows) for rank in ranks]
    expected = measure(images, 4, keep=(1, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "all_gather_object", lambda mine: parts)
        for rank in ranks:
            assert rank.evaluate(6) == expected.summary
            assert differences(vars(rank.counts), vars(expected.counts)) == []
            assert differences(rank.kept, expected.kept) == []
            assert rank.rows == [], "another evaluation starts anew"


def test_the_predictions_asked_for_are_kept() -> None:
    images = pairs(6, 3)
    kept = measure(images, 3, order=[3, 1, 0, 2], keep=(0, 2)).kept
    assert differences(kept, {0: images[0][0], 2: images[2][0]}) == []


def test_a_png_holds_as_many_classes_as_annotations_can() -> None:
    """With one class more, the last would be 0, which is no label; a data set of so many is refused."""
    labels_HW = np.arange(MOST_CLASSES, dtype=np.uint8)[None]
    values_HW = np.array(Image.open(io.BytesIO(as_png(labels_HW))))
    assert values_HW.tolist() == [list(range(1, MOST_CLASSES + 1))]


def test_a_mean_over_images_would_be_another_number() -> None:
    """Mutation: IoU an image, then the mean, as it is easily misunderstood."""
    images = pairs(7, 4)
    ious = [by_torchmetrics([pair], 4)["mIoU"] for pair in images]
    assert abs(measure(images, 4).summary["mIoU"] - float(np.mean(ious))) > 0.1


@pytest.mark.parametrize(
    ("order", "size", "said"),
    [
        ([0, 1, 1], 3, "saw 3 of 3 images"),
        ([0, 1], 3, "saw 2 of 3 images"),
        ([0, 1, 2], 2, "saw 3 of 2 images"),
        ([], 3, "saw 0 of 3 images"),
    ],
)
def test_other_images_than_the_test_set_are_refused(order: list[int], size: int, said: str) -> None:
    images, metric = pairs(0, 3), SceneMetric(3)
    for i in order:
        metric.process([sample(i, images[i])])
    with pytest.raises(DataError, match=said) as error:
        metric.evaluate(size)
    one_line(error.value)


def test_sizes_that_differ_are_one_line() -> None:
    wrong = sample(0, (np.zeros((3, 4), np.uint8), np.zeros((4, 4), np.uint8)))
    wrong = SimpleNamespace(pred_sem_seg=wrong.pred_sem_seg, gt_sem_seg=wrong.gt_sem_seg, img_path="scene_7")
    with pytest.raises(DataError, match=r"prediction \(3, 4\) and labels \(4, 4\) of 'scene_7' differ") as error:
        SceneMetric(2).process([wrong])
    one_line(error.value)


def test_the_summary_is_of_the_areas_alone() -> None:
    metric = measure(pairs(8, 5), 5)
    assert summarise(metric.counts) == metric.summary
    counts = metric.counts
    assert counts.union.tolist() == (counts.predicted + counts.true - counts.intersect).tolist()
    assert {part.dtype for part in vars(counts).values()} == {np.dtype(np.int64)}
