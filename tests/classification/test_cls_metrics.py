"""Accuracies against scikit-learn, the metric on one and two processes, and the confusion matrix."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mlomae.classification.confusion import most_confused, save_confusion
from mlomae.classification.per_image import PerImage, summarise
from mlomae.classification.run import ClassificationMetric, rank_scores
from mlomae.common.errors import DataError, TrainingError


def data(n: int = 200, classes: int = 12, levels: int | None = None) -> tuple[Tensor, Tensor]:
    """Scores (n, classes), of a few values only if ``levels``, and labels that leave out the last class."""
    generator = torch.Generator().manual_seed(n + classes)
    scores = torch.randn(n, classes, generator=generator)
    label = torch.randint(classes - 1, (n,), generator=generator)
    scores[torch.arange(n), label] += 1.0
    return (scores if levels is None else (scores * levels).round() / levels), label


def sample(scores: Tensor, label: Tensor, index: list[int]) -> list[dict[str, Any]]:
    return [{"score": scores[i], "label": int(label[i]), "index": torch.tensor(i)} for i in index]


def ranked(scores: Tensor, label: Tensor) -> PerImage:
    return rank_scores(scores, label, torch.arange(len(label)))


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("classes", [2, 4, 5, 12])
def test_accuracies_are_scikit_learns(classes: int) -> None:
    scores, label = data(classes=classes)
    found = summarise(ranked(scores, label), classes)
    for k, name in ((1, "top1"), (5, "top5")):
        if k >= classes or classes == 2:  # scikit-learn takes two classes for one column
            expected = 1.0 if k >= classes else sklearn.metrics.accuracy_score(label, scores.argmax(dim=1))
        else:
            expected = sklearn.metrics.top_k_accuracy_score(label, scores, k=k, labels=range(classes))
        assert found[name] == pytest.approx(100 * expected, abs=1e-9)
    balanced = sklearn.metrics.balanced_accuracy_score(label, scores.argmax(dim=1))
    assert found["mean_per_class"] == pytest.approx(100 * balanced, abs=1e-9)
    assert (found["n"], found["classes_without_images"]) == (200, 1)


def test_of_equal_scores_the_lower_class_ranks_first() -> None:
    images = rank_scores(torch.tensor([[1.0, 3, 3, 1, 3, 1, 1]]), torch.tensor([2]), torch.tensor([0]))
    assert images.top_classes.tolist() == [[1, 2, 4, 0, 3]]
    scores, label = data(levels=1)
    assert (scores.sort(dim=1).values.diff(dim=1) == 0).any(dim=1).all()  # ties in every row
    found = summarise(ranked(scores, label), 12)
    for k, name in ((1, "top1"), (5, "top5")):
        # scikit-learn prefers the higher class: with the classes counted backwards its rule is ours
        mirrored = sklearn.metrics.top_k_accuracy_score(11 - label, scores.flip(1), k=k, labels=range(12))
        plain = sklearn.metrics.top_k_accuracy_score(label, scores, k=k, labels=range(12))
        assert found[name] == pytest.approx(100 * mirrored, abs=1e-9)
        assert abs(found[name] - 100 * plain) > 0.4


def test_scores_too_close_for_log_softmax_keep_their_order() -> None:
    scores = torch.tensor([[1000.0, 1000.00006, -1000.0]])
    images = rank_scores(scores, torch.tensor([1]), torch.tensor([0]))
    assert images.top_classes.tolist() == [[1, 0, 2]]


def test_log_probabilities_pass_through_and_impossible_classes_rank_last() -> None:
    votes = torch.tensor([[0.0, 3.0, 0.0, 1.0]])
    images = rank_scores((votes / votes.sum()).log(), torch.tensor([3]), torch.tensor([9]))
    assert images.top_classes.tolist() == [[1, 3, 0, 2]]
    np.testing.assert_allclose(images.top_log_probs[0], [np.log(0.75), np.log(0.25), -np.inf, -np.inf], rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores, label = data()
    scores[7, 3] = bad
    with pytest.raises(TrainingError, match=r"1 of 200 images are not finite \(first: image 7\)") as error:
        ranked(scores, label)
    assert "\n" not in str(error.value)
    scores[7] = -torch.inf
    with pytest.raises(TrainingError, match="not finite"):
        ranked(scores, label)


def run(metric: ClassificationMetric, batches: list[list[int]], size: int) -> dict[str, float]:
    scores, label = data()
    for index in batches:
        metric.process(sample(scores, label, index))
    return metric.evaluate(size)


def test_order_does_not_matter_but_missing_images_and_copies_do() -> None:
    expected = run(ClassificationMetric(12), [list(range(200))], 200)
    scores, label = data()
    assert expected == summarise(ranked(scores, label), 12)
    metric = ClassificationMetric(12)
    assert run(metric, [list(range(100, 200)), list(range(100))], 200) == expected
    assert metric.per_image.index.tolist() == list(range(200))
    assert metric.rows == []
    for seen, size in ((list(range(199)), 200), (list(range(200)), 199), ([*range(199), 3], 200)):
        with pytest.raises(DataError, match=f"evaluation saw {len(seen)} of {size} images") as error:
            run(metric, [seen], size)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="evaluation saw 0 of 200 images"):
        metric.evaluate(200)


def test_labels_outside_the_classes_are_one_line() -> None:
    scores, label = data()
    with pytest.raises(DataError, match="outside the model's 5 classes") as error:
        ranked(scores[:, :5], label)
    assert "\n" not in str(error.value)


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    metric = ClassificationMetric(12)
    metrics = run(metric, [contiguous(rank)], 199)
    images = metric.per_image
    arrays = [torch.from_numpy(a) for a in (images.index, images.label, images.top_classes, images.top_log_probs)]
    try:
        run(metric, [[rank]], 199)
    except DataError as error:  # on both ranks: neither waits for the other
        torch.save({"metrics": metrics, "arrays": arrays, "error": str(error)}, folder / f"rank{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads now and then abort an ordinary exit


def contiguous(rank: int) -> list[int]:
    return list(range(rank * 199 // 2, (rank + 1) * 199 // 2))


def test_two_ranks_have_the_images_of_one(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=_rank, args=(r, tmp_path)) for r in (0, 1)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 60
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0.1))
        assert process.exitcode == 0
    metric = ClassificationMetric(12)
    expected = run(metric, [list(range(199))], 199)
    images = metric.per_image
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found["metrics"] == expected
        arrays: tuple[NDArray[Any], ...] = (images.index, images.label, images.top_classes, images.top_log_probs)
        for array, theirs in zip(arrays, found["arrays"], strict=True):
            assert np.array_equal(array, theirs.numpy())
        assert found["error"].startswith("evaluation saw 2 of 199 images")


def test_most_confused_pairs() -> None:
    matrix = np.array([[8, 2, 0], [3, 20, 0], [2, 0, 2]])
    pairs = [(p.true, p.predicted, p.images, round(p.share, 3)) for p in most_confused(matrix)]
    assert pairs == [(1, 0, 3, 0.13), (2, 0, 2, 0.5), (0, 1, 2, 0.2)]
    assert len(most_confused(matrix, most=1)) == 1
    assert most_confused(np.eye(3, dtype=np.int64)) == []


@pytest.mark.parametrize("classes", [2, 12, 300])
def test_pictures_and_tables_for_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    scores, label = data(n=300, classes=classes)
    names = [f'class "{i}", with $signs$ and\na name too long for an axis' for i in range(classes)]
    csv, png = tmp_path / "new" / "confusion.csv", tmp_path / "new" / "confusion.png"
    save_confusion(tmp_path / "new", ranked(scores, label), names, "a run " * 40)
    table = pd.read_csv(csv, index_col=0)
    expected = sklearn.metrics.confusion_matrix(label, scores.argmax(dim=1), labels=range(classes))
    assert np.array_equal(table.to_numpy(), expected)
    assert list(table.columns) == list(table.index) == names
    with Image.open(png) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 500
    assert (pixels[:, -4:] == 255).all()  # nothing runs out of the picture
    assert (pixels[:, :4] == 255).all()
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["confusion.csv", "confusion.png"]
    if classes == 2:
        first = png.read_bytes()
        save_confusion(tmp_path / "new", ranked(scores, label), names, "a run " * 40)
        assert png.read_bytes() == first
