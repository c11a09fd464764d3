"""The split of the training set, and the check that no evaluation image reaches training."""

import copy
import hashlib
import itertools
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch
from numpy.typing import NDArray

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError, DataError, first_names
from mlomae.data.images import Images, Source, evenly_spaced

TOLERATED_SHARE = 0.01
"""Share of the evaluation images that may occur in training: CIFAR and others were published with a few duplicates."""

MAX_FILES_CHECKED = 2000
"""Evaluation images compared by content when reading them means reading files."""


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


def check_same_classes(training: Images, evaluation: Images) -> None:
    """Raise DataError, naming a class, unless both have the same classes in the same order: labels are positions."""
    ours, theirs = list(training.classes), list(evaluation.classes)
    if ours == theirs:
        return
    pairs = ((training, set(theirs)), (evaluation, set(ours)))
    alone = [(images, [name for name in images.classes if name not in others]) for images, others in pairs]
    found = [f"only {images.describe()} has {first_names(names)}" for images, names in alone if names]
    pair = f"{training.describe()} and {evaluation.describe()}"
    reason = "; ".join(found) or f"{pair} have them in another order"
    raise DataError(
        f"the classes of training and evaluation differ: {reason}; give both the same classes, in the same order"
    )


def check_disjoint(training: Images, evaluation: Images) -> None:
    """Refuse an evaluation set whose images would reach training or feedback.

    Raises DataError naming both data sets if

    - they read the same place (resolved paths, symlinks followed) or one reads a folder inside the other's, or they
      are embedded images of the same seed and split;
    - more than 1 % of the evaluation images (TOLERATED_SHARE) occur in training with the same content: pixels if both
      are in memory, file bytes if both read folders, decoded pixels if only one does. In memory all images are
      compared; from folders MAX_FILES_CHECKED evaluation images, evenly spaced, after a filter by size.

    An image that was recompressed or resized is not recognised.
    """
    pairs = (sorted(pair, key=len) for pair in itertools.product(training.locations, evaluation.locations))
    shared = next((inner for outer, inner in pairs if PurePath(inner).is_relative_to(outer)), None)
    if shared is not None:
        reason = f"both read {shared}"
    else:
        checked, found = repeated_images(training, evaluation)
        if len(found) <= TOLERATED_SHARE * checked:
            return
        reason = f"{len(found)} of {checked} evaluation images checked are in training"
    pair = f"training on {training.describe()}, evaluation on {evaluation.describe()}"
    raise DataError(f"evaluation images would reach training: {reason} ({pair}); evaluate on a held-out split")


def repeated_images(training: Images, evaluation: Images, compare_all: bool = False) -> tuple[int, dict[int, int]]:
    """How many evaluation images were compared, and the indices of those that occur in training, with those there.

    Compares all of them if all are in memory or with ``compare_all``, else MAX_FILES_CHECKED, evenly spaced; what is
    compared is as in ``check_disjoint``.
    """
    in_files = "file" in (training.content, evaluation.content)
    chosen = evenly_spaced(len(evaluation), MAX_FILES_CHECKED if in_files and not compare_all else None)
    if training.content == evaluation.content:
        size, digest = "content_size", "digest"
    else:
        # Bytes of a file and pixels in memory cannot be compared: decode, but only files of the right height and width.
        size, digest = "image_size", "pixel_digest"
    sizes = {getattr(evaluation, size)(i) for i in chosen}
    known = {getattr(training, digest)(i): i for i in range(len(training)) if getattr(training, size)(i) in sizes}
    found = {i: known.get(getattr(evaluation, digest)(i)) for i in chosen}
    return len(chosen), {i: at for i, at in found.items() if at is not None}
