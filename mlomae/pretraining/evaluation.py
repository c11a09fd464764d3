"""Evaluation of frozen features: weighted k-NN and a linear probe, on the class token, on the mean of the patch tokens,
and on the mean of those in the middle.

`mlomae evaluate` and the k-NN of the classification task share the pixels (`PlainBatches`) and the vote.
"The linear probe" is the convex one of `linear_probe_accuracy`; a head trained by SGD or LARS is never called that.

Shape legend: N images, D encoder width, B images of a block. Percentages are 0 to 100.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from mlomae.common.console import shown
from mlomae.common.errors import DataError, TrainingError, counted, first_names
from mlomae.data import Source, Stream, build_augment, check_two_classes
from mlomae.masking.sampling import central_patches
from mlomae.models import ViT
from mlomae.pretraining.log import warn

Batches = Iterable[dict[str, Any]]
NEIGHBOURS = 20
MIDDLE = 0.25
"""Share of the area whose patches are the middle, where objects tend to be. Reading there takes no look at the image: a
rival of every mask that seems to find objects."""


class PlainBatches(Dataset[dict[str, Any]]):
    """Every image of ``source`` once, or a fixed random ``limit`` of them, in batches; item i is batch i.

    Images have no augmentation: the centred square, ``size`` pixels a side; ``options`` of `mlomae.data.augment.Plain`
    are its share of the shorter side, mean and deviation.
    """

    def __init__(
        self, source: Source, size: int, limit: int | None = None, batch_size: int = 256, **options: Any
    ) -> None:
        self.stream = Stream(source, None, build_augment({"type": "Plain", "size": size, **options}), 0, "evaluation")
        self.count, self.batch_size = min(limit or len(source), len(source)), batch_size

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) of all images; nothing is decoded."""
        return np.asarray(self.stream.source.labels)[self.stream.locate(0, self.count)[1].numpy()]

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __getitem__(self, i: int) -> dict[str, Any]:
        start = i * self.batch_size
        return self.stream.batch(start, min(self.batch_size, self.count - start))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))


@torch.no_grad()
def extract_features(
    encoder: nn.Module, batches: Batches, device: torch.device | str = "cpu", middle: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Features (N, 2D) float32, class token then mean of the patch tokens, and labels (N,) int64, on the CPU; with
    ``middle`` (K,), (N, 3D): the mean of these patches comes last.

    ``encoder`` is a `mlomae.models.ViT` or a ViT of timm; ``batches`` yield {"image": (B, 3, H, W) normalised, "label":
    (B,)}. The encoder runs in evaluation mode, its mode is restored. Raises TrainingError if a feature is not finite,
    DataError if there are no batches.
    """
    was_training, encode = encoder.training, getattr(encoder, "forward_features", encoder)
    prefix = getattr(encoder, "num_prefix_tokens", 1)
    encoder.eval()
    middle = None if middle is None else middle.to(device)
    rows, labels = [], []
    try:
        for batch in shown(batches, "features"):
            tokens_BLD = encode(batch["image"].to(device, non_blocking=True)).float()
            parts = [tokens_BLD[:, 0], tokens_BLD[:, prefix:].mean(dim=1)]
            if middle is not None:
                parts.append(tokens_BLD[:, prefix:].index_select(1, middle).mean(dim=1))
            rows.append(torch.cat(parts, dim=1).cpu())
            labels.append(batch["label"].cpu().long())
    finally:
        encoder.train(was_training)
    if not rows:
        raise DataError("evaluation got no images; check the evaluation data set and its batch size")
    features = torch.cat(rows)
    check_finite(features)
    return features, torch.cat(labels)


def check_finite(features_ND: Tensor) -> None:
    """Raise TrainingError if a feature row holds NaN or infinity."""
    bad = (~torch.isfinite(features_ND).all(dim=1)).nonzero().flatten()
    if len(bad):
        raise TrainingError(
            f"{len(bad)} of {len(features_ND)} feature rows are not finite (first: row {int(bad[0])}); "
            "training has diverged: take an earlier checkpoint, or train again in another --work-dir with a lower rate"
        )


def neighbours(k: int, images: int) -> dict[str, int]:
    """What a record keeps of a k-NN with fewer training ``images`` than ``k``: their number, which k is lowered to."""
    return {"knn_k": images} if k > images else {}


def check_probe(train: PlainBatches, test: PlainBatches, remedy: str) -> None:
    """Before any work: warn of fewer images than neighbours, and of classes that cannot be found.

    Raises DataError, with ``remedy``, if all training images of the probe are of one class.
    """
    source, labels = train.stream.source, train.labels
    check_two_classes(source, labels, "the linear probe", remedy)
    if neighbours(NEIGHBOURS, len(labels)):
        warn(f"k-NN has {counted(len(labels), 'training image')}: k is lowered to that, from {NEIGHBOURS}")
    if lacking := [source.classes[i] for i in np.setdiff1d(test.labels, labels)]:
        names = first_names(lacking)
        warn(f"classes are tested without a training image, and k-NN and linear probe cannot find them: {names}")


def _check_pair(features: Tensor, labels: Tensor, what: str) -> None:
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise DataError(f"{what} features {tuple(features.shape)} and labels {tuple(labels.shape)} do not pair up")
    check_finite(features)


@torch.no_grad()
def knn_votes(
    train_f: Tensor,
    train_y: Tensor,
    test_f: Tensor,
    num_classes: int,
    k: int = NEIGHBOURS,
    temperature: float = 0.07,
    block: int = 512,
) -> Tensor:
    """Votes (N, C) of the k nearest training rows by cosine, each voting exp((cosine - nearest) / temperature).

    Exact (all pairs), ``block`` test rows at a time. Source: Wu et al., "Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination", CVPR 2018, section 3.4; as in DINO's eval_knn.py. Raises DataError if
    ``k`` exceeds the training rows or the shapes do not fit, TrainingError if a feature is not finite.
    """
    _check_pair(train_f, train_y, "training")
    check_finite(test_f)
    if not 1 <= k <= len(train_f):
        raise DataError(f"k-NN with k={k} needs at least that many training rows, got {len(train_f)}; lower k")
    train_n, test_n = F.normalize(train_f.float(), dim=1), F.normalize(test_f.float(), dim=1)
    votes_NC = torch.zeros(len(test_n), num_classes)
    for rows, votes_BC in zip(torch.split(test_n, block), torch.split(votes_NC, block), strict=True):
        cosine_Bk, ids_Bk = (rows @ train_n.T).topk(k, dim=1)
        weights_Bk = ((cosine_Bk - cosine_Bk[:, :1]) / temperature).exp()  # minus the largest: no overflow
        votes_BC.scatter_add_(1, train_y[ids_Bk], weights_Bk)
    return votes_NC


def knn_accuracy(train_f: Tensor, train_y: Tensor, test_f: Tensor, test_y: Tensor, **options: Any) -> float:
    """Top-1 in percent of `knn_votes`, which has the options and the errors."""
    _check_pair(test_f, test_y, "test")
    classes = int(max(train_y.max(), test_y.max())) + 1
    votes_NC = knn_votes(train_f, train_y, test_f, classes, **options)
    return 100.0 * int((votes_NC.argmax(dim=1) == test_y).sum()) / len(test_y)


def linear_probe_accuracy(
    train_f: Tensor, train_y: Tensor, test_f: Tensor, test_y: Tensor, inverse_penalty: float = 1.0, max_iter: int = 1000
) -> float:
    """Top-1 in percent of multinomial logistic regression on frozen features, standardised with training statistics.

    Standardising takes the place of BatchNorm1d(affine=False, eps=1e-6) in MAE's recipe (main_linprobe.py), and the
    convex optimum of Σ cross-entropy + ||W||² / (2 ``inverse_penalty``), found by L-BFGS from zero in float64, that of
    its LARS schedule: the number depends on no seed and no learning rate. Raises DataError for fewer than two training
    classes or shapes that do not fit, TrainingError if a feature is not finite.
    """
    from sklearn.linear_model import LogisticRegression  # a second, of which only the end of a run has need

    _check_pair(train_f, train_y, "training")
    _check_pair(test_f, test_y, "test")
    if train_y.min() == train_y.max():
        raise DataError("the linear probe needs at least two classes in the training set; check the labels")
    train = train_f.double()
    mean, scale = train.mean(dim=0), (train.var(dim=0, unbiased=False) + 1e-6).sqrt()
    # scikit-learn and not torch.optim.LBFGS: four times as fast on 50,000 x 192 (float64, one thread)
    probe = LogisticRegression(C=inverse_penalty, max_iter=max_iter)
    with threadpool_limits(1):  # no faster with more at this size, and ten times slower on busy cores
        probe.fit(((train - mean) / scale).numpy(), train_y.numpy())
        predicted = probe.predict(((test_f.double() - mean) / scale).numpy())
    return 100.0 * float(np.mean(predicted == test_y.numpy()))


def evaluate(
    encoder: ViT, train_batches: Batches, test_batches: Batches, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """k-NN and linear probe for the three poolings.

    Returns percent under knn_top1_cls, knn_top1_avg, knn_top1_middle, linear_top1_cls and so on, and chance (what a
    constant prediction gets right, that of the most frequent training class), the image counts n_train, n_test, and
    knn_k where there are fewer training images than `NEIGHBOURS`. Grids without patches inside the middle have none of
    its numbers. Both take `PlainBatches`: training crops would understate the accuracy. Errors as in the functions
    above.
    """
    middle = central_patches(encoder.grid, MIDDLE).nonzero().flatten()
    poolings = ["cls", "avg", *(["middle"] if len(middle) else [])]
    given = (device, middle if len(middle) else None)
    train_f, train_y = extract_features(encoder, train_batches, *given)
    test_f, test_y = extract_features(encoder, test_batches, *given)
    lowered = neighbours(NEIGHBOURS, len(train_y))
    result: dict[str, float] = {**lowered}
    parts = zip(poolings, train_f.chunk(len(poolings), dim=1), test_f.chunk(len(poolings), dim=1), strict=True)
    for pooling, train_ND, test_ND in parts:
        data = (train_ND, train_y, test_ND, test_y)
        result[f"knn_top1_{pooling}"] = knn_accuracy(*data, k=lowered.get("knn_k", NEIGHBOURS))
        result[f"linear_top1_{pooling}"] = linear_probe_accuracy(*data)
    most_frequent = int(train_y.bincount().argmax())
    chance = 100.0 * (test_y == most_frequent).double().mean().item()
    return {**result, "n_train": len(train_y), "n_test": len(test_y), "chance": chance}
