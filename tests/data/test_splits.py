"""The split of the training set, and the refusal of evaluation images in training."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import MemorySource, Textures, build_source, check_disjoint, split_train


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


def test_split_refuses_bad_fraction_and_single_image(uneven):
    for fraction in (0, 1, -0.1, 2):
        with pytest.raises(ConfigError, match="val_fraction"):
            split_train(uneven, fraction)
    with pytest.raises(DataError, match=r"'b'.*has one image"):
        split_train(memory(uneven.images_NCHW[:4], np.array([0, 0, 1, 0]), "/small"))


def refused(training, evaluation) -> str:
    with pytest.raises(DataError) as error:
        check_disjoint(training, evaluation)
    assert "\n" not in str(error.value)
    return str(error.value)


def folder(root, split="train", **more):
    return build_source({"type": "imagefolder", "root": str(root), "split": split, **more})


def test_same_folder_is_refused(tmp_path, write_tree):
    root = write_tree(write_tree(tmp_path, "train"), "val", seed=1)
    check_disjoint(folder(root), folder(root, "val"))
    assert refused(folder(root), folder(root)).count(str(root)) >= 2


def test_symlinks_are_followed(tmp_path, write_tree):
    root = write_tree(write_tree(tmp_path / "real", "train"), "val", seed=1)
    (tmp_path / "link").symlink_to(root)
    refused(folder(root, "val"), folder(tmp_path / "link", "val"))
    (root / "test").symlink_to(root / "val")
    assert str(root / "val") in refused(folder(root, "val"), folder(root, "test"))
    check_disjoint(folder(root), folder(root, "test"))


def test_folder_inside_the_other_is_refused(tmp_path, write_tree):
    root = write_tree(tmp_path, "train")
    write_tree(root / "train" / "dog", "deep", seed=2)
    message = refused(folder(root), folder(root / "train" / "dog", "deep"))
    assert str(root / "train" / "dog" / "deep") in message
    refused(folder(root / "train" / "dog", "deep"), folder(root))


def test_a_common_name_prefix_is_not_containment(tmp_path, write_tree):
    root = write_tree(write_tree(tmp_path, "train"), "train2", seed=1)
    check_disjoint(folder(root, "train"), folder(root, "train2"))
    check_disjoint(folder(root, "train2"), folder(root, "train"))


def test_copy_is_refused_and_both_paths_are_named(tmp_path, write_tree):
    root = write_tree(tmp_path / "original", "train")
    shutil.copytree(root, tmp_path / "copy")
    shutil.move(tmp_path / "copy" / "train", tmp_path / "copy" / "val")
    message = refused(folder(root), folder(tmp_path / "copy", "val"))
    assert str(root) in message
    assert str(tmp_path / "copy") in message
    assert "12 of 12" in message


@pytest.mark.parametrize(("repeated", "legal"), [(0, True), (1, True), (2, False)])
def test_one_per_cent_of_repeated_images_is_tolerated(repeated, legal):
    rng = np.random.default_rng(5)
    pixels = torch.from_numpy(rng.integers(0, 256, (200, 3, 6, 6), dtype=np.uint8))
    training, evaluation = pixels[:100].clone(), pixels[100:].clone()
    evaluation[40 : 40 + repeated] = training[7 : 7 + repeated]
    pair = memory(training, np.zeros(100), "/train"), memory(evaluation, np.zeros(100), "/test")
    if legal:
        check_disjoint(*pair)
    else:
        assert "2 of 100" in refused(*pair)


def test_cifar_copy_and_swapped_batch(tmp_path, write_cifar):
    root = write_cifar(tmp_path / "a")
    train, test = (build_source({"type": "cifar10", "root": str(root), "split": s}) for s in ("train", "test"))
    check_disjoint(train, test)
    refused(test, test)
    shutil.copytree(root, tmp_path / "b")
    copy = build_source({"type": "cifar10", "root": str(tmp_path / "b"), "split": "test"})
    assert str(tmp_path / "b") in refused(test, copy)
    shutil.copy(root / "cifar-10-batches-py" / "data_batch_2", root / "cifar-10-batches-py" / "test_batch")
    refused(train, build_source({"type": "cifar10", "root": str(root), "split": "test"}))


def test_pixels_written_as_files_are_recognised(tmp_path):
    train, test = Textures("train", count=12, classes=2), Textures("test", count=12, classes=2)
    for i in range(12):
        place = tmp_path / "val" / train.classes[train.labels[i]] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(train.image(i).permute(1, 2, 0).numpy()).save(place)
    refused(train, folder(tmp_path, "val"))
    check_disjoint(test, folder(tmp_path, "val"))


def test_textures_of_one_seed_and_split_are_refused_whatever_their_size():
    refused(Textures(count=4), Textures(count=9, size=48))
    check_disjoint(Textures(count=4), Textures("test", count=4))
    check_disjoint(Textures(count=4), Textures(count=4, seed=1))
