"""The split of the training set, and whether training and evaluation go together."""

import copy
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError, DataError, counted, first_names
from mlomae.data.images import Images, Source


@dataclass(frozen=True)
class Split:
    """Two disjoint parts of a training set, sorted indices (n,) int64, and the SHA-256 (hex) that identifies them.

    ``alone``: classes of one image, which are in the first part only.
    """

    train_indices: NDArray[np.int64]
    val_indices: NDArray[np.int64]
    hash: str
    alone: Sequence[str] = ()


def split_train(source: Source, val_fraction: float = 0.2, seed: int = 0) -> Split:
    """Split ``source`` by class, so that each class has ``val_fraction`` of its images (rounded, at least one) in val.

    A class of one image is kept in train. The result depends on (seed, labels) alone; its hash covers both index lists
    and the content of the source.

    Raises ConfigError for a fraction outside (0, 1), DataError if no class has two images.
    """
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction {val_fraction} must be between 0 and 1, e.g. 0.2")
    order_keys = random_keys.fold(random_keys.root_key("split", seed), torch.arange(len(source))).numpy()
    val, alone = [], []
    for label in np.unique(source.labels):
        members = np.flatnonzero(source.labels == label)
        if len(members) < 2:
            alone.append(source.classes[label])
            continue
        count = min(max(round(len(members) * val_fraction), 1), len(members) - 1)
        val.append(members[np.argsort(order_keys[members], kind="stable")[:count]])
    if not val:
        raise DataError(f"no class of {source.describe()} has two images; the two parts of a split need one each")
    val_indices = np.sort(np.concatenate(val)).astype(np.int64)
    train_indices = np.setdiff1d(np.arange(len(source), dtype=np.int64), val_indices)
    total = hashlib.sha256(source.fingerprint().encode())
    for part in (train_indices, val_indices):
        total.update(b"%d:" % len(part) + part.astype("<i8").tobytes())
    return Split(train_indices, val_indices, total.hexdigest(), alone)


def check_two_classes(source: Source, labels: NDArray[np.int64], use: str, remedy: str) -> None:
    """Raise DataError, naming the ``use`` of these images of ``source`` and a ``remedy``, if all are of one class."""
    if len(found := np.unique(labels)) < 2:
        only = f"it gets {counted(len(labels), 'image')} of {source.describe()}, all of '{source.classes[found[0]]}'"
        raise DataError(f"{use} needs two classes at least, and {only}; {remedy}")


def shuffle_labels(source: Source, split: Split, seed: int) -> Source:
    """A control: ``source`` with its labels permuted within each part of ``split``, as a function of ``seed``.

    Within the parts, so that each keeps its class counts and thus its chance level. Pixels are shared, not copied. The
    fingerprint is that of the permuted labels; ``split`` is that of the true ones.
    """
    labels = np.asarray(source.labels).copy()
    for part, indices in (("train", split.train_indices), ("val", split.val_indices)):
        order = random_keys.permutation(random_keys.root_key("shuffled labels", seed, part), len(indices)).numpy()
        labels[indices] = labels[indices[order]]
    shuffled = copy.copy(source)
    shuffled.labels = labels
    return shuffled


def check_classes(training: Images, evaluation: Images) -> None:
    """Raise DataError, naming a class, unless both have the same classes in the same order, since labels are positions,
    and as many as there must be to tell them apart."""
    # names of folders may come in either of Unicode's forms
    ours, theirs = (
        [unicodedata.normalize("NFC", str(name)) for name in images.classes] for images in (training, evaluation)
    )
    if ours != theirs:
        pairs = ((training, ours, set(theirs)), (evaluation, theirs, set(ours)))
        alone = [(images, [name for name in names if name not in others]) for images, names, others in pairs]
        found = [f"only {images.describe()} has {first_names(names)}" for images, names in alone if names]
        pair = f"{training.describe()} and {evaluation.describe()}"
        reason = "; ".join(found) or f"{pair} have them in another order"
        raise DataError(
            f"the classes of training and evaluation differ: {reason}; give both the same classes, in the same order"
        )
    if len(ours) < training.fewest_classes:
        raise DataError(f"{training.describe()} has the class '{ours[0]}' alone; {training.class_remedy}")
