"""The split of the training set."""

import unicodedata

import numpy as np
import pytest
import torch

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import MemorySource, check_classes, split_train


def memory(images: torch.Tensor, labels: np.ndarray, place: str) -> MemorySource:
    return MemorySource("memory", "train", place, ["a", "b", "c"], images, labels, [place])


@pytest.fixture(scope="module")
def uneven() -> MemorySource:
    """100, 40 and 5 images of three classes, in mixed order."""
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 40, 5]))
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (145, 3, 4, 4), dtype=np.uint8))
    return memory(images, labels, "/uneven")


def test_split_is_disjoint_complete_and_stratified(uneven):
    split = split_train(uneven, 0.2, seed=3)
    both = np.concatenate([split.train_indices, split.val_indices])
    assert sorted(both.tolist()) == list(range(145))
    assert np.bincount(uneven.labels[split.val_indices]).tolist() == [20, 8, 1]
    assert split.val_indices.dtype == np.int64


def test_split_is_deterministic_and_follows_the_seed(uneven):
    first, again, other = split_train(uneven), split_train(uneven), split_train(uneven, seed=1)
    assert first.val_indices.tolist() == again.val_indices.tolist()
    assert first.hash == again.hash
    assert first.val_indices.tolist() != other.val_indices.tolist()
    assert first.hash != other.hash
    assert first.hash != split_train(uneven, 0.3).hash


def test_split_hash_follows_content(uneven):
    changed = uneven.images_NCHW.clone()
    changed[17, 0, 0, 0] ^= 1
    twin = memory(uneven.images_NCHW.clone(), uneven.labels, "/elsewhere")
    assert split_train(twin).hash == split_train(uneven).hash
    assert split_train(memory(changed, uneven.labels, "/uneven")).hash != split_train(uneven).hash


def test_memory_fingerprint_follows_order_and_labels(uneven):
    assert uneven.fingerprint() == uneven.fingerprint(range(145))
    assert uneven.fingerprint([1, 2]) != uneven.fingerprint([2, 1])
    relabelled = memory(uneven.images_NCHW, (uneven.labels + 1) % 3, "/uneven")
    assert relabelled.fingerprint() != uneven.fingerprint()


def test_split_refuses_bad_fractions_and_keeps_a_single_image_for_training(uneven):
    for fraction in (0, 1, -0.1, 2):
        with pytest.raises(ConfigError, match="val_fraction"):
            split_train(uneven, fraction)
    split = split_train(memory(uneven.images_NCHW[:4], np.array([0, 0, 1, 0]), "/small"))
    assert (len(split.val_indices), split.alone) == (1, ["b"])
    assert 2 in split.train_indices
    with pytest.raises(DataError, match="no class of memory train at /small has two images"):
        split_train(memory(uneven.images_NCHW[:2], np.array([0, 1]), "/small"))


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (["a", "é"], ["a", unicodedata.normalize("NFD", "é")], None),
        (["a", "b"], ["b", "a"], "have them in another order; give both the same"),
        (["a", "b"], ["a", "c"], "only memory train at /a has b; only memory train at /b has c; give both"),
        (["a", "b"], ["a"], "only memory train at /a has b; give both"),
        (["a"], ["a"], "memory train at /a has the class 'a' alone; give two classes or more"),
    ],
)
def test_classes_are_compared_by_name_and_one_says_nothing(
    ours: list[str], theirs: list[str], said: str | None
) -> None:
    image = torch.zeros((1, 3, 4, 4), dtype=torch.uint8)
    pair = [
        MemorySource("memory", "train", at, names, image, [0], [at]) for at, names in (("/a", ours), ("/b", theirs))
    ]
    if said is None:
        check_classes(*pair)
        return
    with pytest.raises(DataError, match=said):
        check_classes(*pair)
