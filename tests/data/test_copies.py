"""No evaluation image reaches training: the same place, equal pixels in whatever file, near copies."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mlomae.common.errors import CheckpointError, DataError
from mlomae.data import PUBLISHED, MemorySource, Published, Textures, build_source, check_disjoint
from mlomae.data.copies import FILE, digests_of, find_copies, load_digests, save_digests


def memory(images: torch.Tensor, labels: np.ndarray, place: str) -> MemorySource:
    return MemorySource("memory", "train", place, ["a", "b", "c"], images, labels, [place])


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
    pixels = torch.from_numpy(rng.integers(0, 256, (200, 3, 24, 24), dtype=np.uint8))
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


# --- copies in other files and other pixels --------------------------------------------------------------------------


def scene(seed: int, side: int = 64) -> NDArray[np.uint8]:
    """(side, side, 3): a few soft shapes and grain, different for each seed, as photographs differ."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    total = np.zeros((side, side, 3))
    for _ in range(12):
        centre, width, colour = rng.uniform(0, 1, 2), rng.uniform(0.03, 0.3), rng.normal(0, 60, 3)
        total += np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2)[..., None] * colour
    return (total + 128 + rng.normal(0, 6, total.shape)).clip(0, 255).astype(np.uint8)


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 75": lambda image: recompressed(image, 75),
    "quality 40": lambda image: recompressed(image, 40),
    "mirrored": ImageOps.mirror,
    "mirrored, quality 50": lambda image: recompressed(ImageOps.mirror(image), 50),
    "half the size": lambda image: image.resize((32, 32)),
    "twice the size": lambda image: image.resize((128, 128)),
    "brighter": lambda image: image.point(lambda value: min(255, int(1.1 * value))),
    "grey": lambda image: image.convert("L"),
}


def pair_of_folders(root: Path, write: Callable[[Image.Image, Path, int], None], copied: int, images: int = 40) -> None:
    """Training with ``images`` scenes; validation with as many others, of which the first ``copied`` are written from
    training scenes by ``write``."""
    for i in range(images):
        for split, seed in (("train", i), ("val", 1000 + i)):
            folder = root / split / ("ab"[i % 2])
            folder.mkdir(parents=True, exist_ok=True)
            if split == "val" and i < copied:
                write(Image.fromarray(scene(i)), folder / f"other{i}", i)
            else:
                Image.fromarray(scene(seed)).save(folder / f"{seed:04d}.png")


@pytest.mark.parametrize("kind", ["bmp", "webp", "png"])
def test_equal_pixels_are_found_in_other_bytes(kind: str, tmp_path: Path) -> None:
    options = {"bmp": {}, "webp": {"lossless": True}, "png": {"compress_level": 1}}[kind]
    pair_of_folders(tmp_path, lambda image, path, i: image.save(f"{path}.{kind}", **options), copied=3)
    message = refused(folder(tmp_path), folder(tmp_path, "val"))
    first = f"val/a/other0.{kind} = train/a/0000.png"
    assert f"3 of 40 evaluation images are in training ({first}, " in message
    assert message.endswith("; remove them from one of the two")
    assert all((tmp_path / name).is_file() for name in first.split(" = ")), "the names lead to the files"
    for i in range(3):
        next((tmp_path / "val").rglob(f"other{i}.{kind}")).unlink()
    check_disjoint(folder(tmp_path), folder(tmp_path, "val"))


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_altered_copies_are_found_and_others_are_not(
    alter: Callable[[Image.Image], Image.Image], tmp_path: Path
) -> None:
    pair_of_folders(tmp_path, lambda image, path, i: alter(image).save(f"{path}.png"), copied=3)
    training, evaluation = folder(tmp_path), folder(tmp_path, "val")
    message = refused(training, evaluation)
    assert "3 of 40 evaluation images have near copies in training" in message
    assert "data.allow_near_copies=True" in message
    found = check_disjoint(training, evaluation, allow_near=True)
    assert found.counts() == {"compared": 40, "equal": 0, "near": 3}
    names = {evaluation.relative_path(i): training.relative_path(at) for i, at in found.near.items()}
    assert names == {f"{c}/other{i}.png": f"{c}/{i:04d}.png" for i, c in enumerate("aba")}


def test_every_second_of_many_files_is_found(tmp_path: Path) -> None:
    """A comparison of evenly spaced samples would miss all of them."""
    rng = np.random.default_rng(0)
    for i in range(300):
        for split in ("train", "val"):
            (tmp_path / split / "a").mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
                tmp_path / split / "a" / f"{i:03d}.png"
            )
        if i % 2:
            shutil.copy(tmp_path / "val" / "a" / f"{i:03d}.png", tmp_path / "train" / "a" / f"copy{i:03d}.png")
    assert "150 of 300 evaluation images" in refused(folder(tmp_path), folder(tmp_path, "val"))


def test_published_sets_may_have_the_near_copies_they_are_known_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pair_of_folders(tmp_path, lambda image, path, i: recompressed(image, 60).save(f"{path}.png"), copied=2)
    refused(folder(tmp_path), folder(tmp_path, "val"))
    monkeypatch.setitem(PUBLISHED, "imagefolder", Published({}, 2, near_copies=0.05))
    assert len(check_disjoint(folder(tmp_path), folder(tmp_path, "val")).near) == 2


def test_digests_are_kept_in_a_run_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    pair_of_folders(tmp_path, lambda image, path, i: None, copied=0, images=12)
    images, weights = folder(tmp_path), tmp_path / "run" / "checkpoints" / "iter_4.pth"
    assert load_digests(weights) is None
    weights.parent.mkdir(parents=True)
    save_digests(tmp_path / "run", [images, Textures("train", count=12, classes=2)])
    loaded = load_digests(weights)
    assert loaded is not None
    assert find_copies(loaded, digests_of(images)).equal == {i: i for i in range(12)}
    save_digests(tmp_path / "next", [Textures("train", count=12, classes=2)], loaded)
    again = load_digests(tmp_path / "next" / "model.safetensors")
    assert again is not None
    assert np.array_equal(again.pixels, loaded.pixels)
    (tmp_path / "run" / FILE).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"images\.npz' is damaged"):
        load_digests(weights)


def test_embedded_images_alone_have_no_copies(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_digests(tmp_path / "run", [Textures("train", count=12, classes=2)])
    loaded = load_digests(tmp_path / "run" / "a.pth")
    assert loaded is not None
    assert find_copies(loaded, digests_of(Textures("test", count=5, classes=2))).counts() == {
        "compared": 5,
        "equal": 0,
        "near": 0,
    }
