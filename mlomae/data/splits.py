"""The split of the training set."""

import copy
import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError, DataError
from mlomae.data.images import Source


@dataclass(frozen=True)
class Split:
    """Two disjoint parts of a training set, sorted indices (n,) int64, and the SHA-256 (hex) that identifies them."""

    train_indices: NDArray[np.int64]
    val_indices: NDArray[np.int64]
    hash: str


def split_train(source: Source, val_fraction: float = 0.2, seed: int = 0) -> Split:
    """Split ``source`` by class, so that each class has ``val_fraction`` of its images (rounded, at least one) in val.

    The result depends on (seed, labels) alone; its hash covers both index lists and the content of the source.

    Raises ConfigError for a fraction outside (0, 1), DataError if a class has fewer than two images.
    """
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction {val_fraction} must be between 0 and 1, e.g. 0.2")
    order_keys = random_keys.fold(random_keys.root_key("split", seed), torch.arange(len(source))).numpy()
    val = []
    for label in np.unique(source.labels):
        members = np.flatnonzero(source.labels == label)
        if len(members) < 2:
            raise DataError(f"class {source.classes[label]!r} of {source.describe()} has one image; a split needs two")
        count = min(max(round(len(members) * val_fraction), 1), len(members) - 1)
        val.append(members[np.argsort(order_keys[members], kind="stable")[:count]])
    val_indices = np.sort(np.concatenate(val)).astype(np.int64)
    train_indices = np.setdiff1d(np.arange(len(source), dtype=np.int64), val_indices)
    total = hashlib.sha256(source.fingerprint().encode())
    for part in (train_indices, val_indices):
        total.update(b"%d:" % len(part) + part.astype("<i8").tobytes())
    return Split(train_indices, val_indices, total.hexdigest())


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
