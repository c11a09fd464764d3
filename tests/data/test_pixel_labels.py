"""Labels of pixels go where their pixels go: through crops and flips, in streams, from textures and from scenes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from scene_layouts import scenes, write_annotation
from torch import Tensor

from mlomae.common import random_keys
from mlomae.common.errors import DataError
from mlomae.data import IGNORE, SceneSource, Textures, build_augment, build_training_source, check_disjoint, split_train
from mlomae.data.augment import Augmentation
from mlomae.data.streams import Stream

AUGMENTATIONS: list[dict[str, Any]] = [
    {"type": "RandomResizedCropFlip", "scale": (0.2, 1.0)},
    {"type": "PadCropFlip", "padding": 3},
    {"type": "Plain", "crop": 0.8},
]


def keys(count: int) -> Tensor:
    return random_keys.fold(random_keys.root_key("pixels"), torch.arange(count))


def built(cfg: dict[str, Any], size: int) -> Augmentation:
    return build_augment({**cfg, "size": size})


def cut_labels(augment: Augmentation, maps: list[Tensor] | Tensor, key: Tensor) -> Tensor:
    sizes = torch.tensor([m.shape for m in maps]).unbind(1)
    return augment.cut_maps(maps, augment.crops(key, *sizes), *sizes, IGNORE)


@pytest.mark.parametrize("cfg", AUGMENTATIONS, ids=lambda c: c["type"])
@given(size=st.integers(4, 20), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_labels_are_cut_by_the_boxes_of_their_images(cfg: dict[str, Any], size: int, seed: int) -> None:
    """Against the same nearest-pixel cut written as a loop, for images of different sizes."""
    rng = np.random.default_rng(seed)
    maps = [torch.from_numpy(rng.integers(0, 5, rng.integers(3, 30, 2)).astype(np.uint8)) for _ in range(4)]
    augment, key = built(cfg, size), keys(4) + seed
    found = cut_labels(augment, maps, key)
    sizes = torch.tensor([m.shape for m in maps])
    crops = augment.crops(key, *sizes.unbind(1))
    for b, (top, left, height, width, flip) in enumerate(zip(*(values.tolist() for values in crops), strict=True)):
        for row in range(size):
            for column in range(size):
                y = top + int((row + 0.5) * height / size)
                x = left + int(((size - 1 - column if flip else column) + 0.5) * width / size)
                inside = 0 <= y < sizes[b, 0] and 0 <= x < sizes[b, 1]
                assert int(found[b, row, column]) == (int(maps[b][y, x]) if inside else IGNORE)


@pytest.mark.parametrize("cfg", AUGMENTATIONS, ids=lambda c: c["type"])
def test_labels_move_with_pixels_and_objects(cfg: dict[str, Any]) -> None:
    """Images that are their own label maps: what is bright is of class 1."""
    blocks = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    large = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = (255 * large).to(torch.uint8).expand(-1, 3, -1, -1)
    augment = build_augment({**cfg, "size": 48, "mean": (0.5,) * 3, "std": (0.5,) * 3})
    image, objects = augment(images, keys(16), large[:, 0])
    label = cut_labels(augment, large[:, 0].to(torch.uint8), keys(16))
    known = label != IGNORE
    assert torch.equal(label == 1, objects)
    assert bool((known | (cfg["type"] == "PadCropFlip")).all())
    agreement = ((image[:, 0] > 0) == (label == 1))[known].float().mean()
    assert agreement > 0.97, "bicubic edges alone may differ"
    assert ((image[:, 0].flip(-1) > 0) == (label == 1))[known].float().mean() < 0.8


def test_padding_has_no_label() -> None:
    inside = torch.zeros(64, 12, 12, dtype=torch.uint8)
    label = cut_labels(built({"type": "PadCropFlip", "padding": 6}, 12), inside, keys(64))
    assert set(label.unique().tolist()) == {0, IGNORE}
    assert label.dtype == torch.uint8


# --- streams and sources ------------------------------------------------------------------------------------------


def test_a_stream_carries_them_where_they_are_asked_for() -> None:
    source = Textures(count=24, size=16, classes=4, mixed=True)
    assert list(source.pixel_classes) == ["background", *source.classes]
    augment = build_augment({"type": "Plain", "size": 16})
    batch = Stream(source, None, augment, 0, "head", pixels=True).batch(5, 12)
    for label, i in zip(batch["pixel_label"], batch["index"].tolist(), strict=True):
        assert torch.equal(label, source.pixel_labels(i))
    assert torch.equal(batch["pixel_label"] > 0, batch["object"])
    plain = Stream(source, None, augment, 0, "head").batch(5, 12)
    assert "pixel_label" not in plain
    assert all(torch.equal(plain[name], batch[name]) for name in plain)


def test_a_source_without_them_is_refused() -> None:
    source = Textures(count=24, size=16)
    source.pixel_classes = ()
    with pytest.raises(DataError, match=r"of textures train .* lacks a class for every pixel") as error:
        Stream(source, None, build_augment({"type": "Plain", "size": 16}), 0, "head", pixels=True)
    assert "\n" not in str(error.value)


def test_scenes_become_a_source(tmp_path: Path) -> None:
    root = scenes(tmp_path, classes=5, training=6)
    cfg = {"type": "scene_folder", "root": str(root), "split": "training"}
    source = build_training_source(cfg)
    assert isinstance(source, SceneSource)
    assert (len(source), list(source.classes), len(source.pixel_classes)) == (6, ["scene"], 5)
    wrapped = source.original
    for name in ("name", "split", "root", "locations"):
        assert getattr(source, name) == getattr(wrapped, name)
    assert source.fingerprint() == wrapped.fingerprint()
    assert source.describe() == wrapped.describe()
    for i in range(6):
        assert torch.equal(source.image(i), wrapped.image(i))
        assert torch.equal(source.pixel_labels(i), wrapped.labels(i))
        for question in ("image_size", "pixel_digest"):
            assert getattr(source, question)(i) == getattr(wrapped, question)(i)
    split = split_train(source, 0.34)
    assert (len(split.train_indices), len(split.val_indices)) == (4, 2)
    copy = pickle.loads(pickle.dumps(source))
    batch = Stream(copy, None, built({"type": "Plain"}, 8), 0, "x", pixels=True).batch(0, 6)
    assert batch["pixel_label"].shape == (6, 8, 8)
    assert set(batch["pixel_label"].unique().tolist()) <= {0, 1, 2, 3, 4, IGNORE}


def test_photos_that_were_annotated_as_they_are_stored_fit_their_labels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for path in (scenes(tmp_path) / "images" / "training").iterdir():
        Image.open(path).save(path, exif=exif)
    source = build_training_source({"type": "scene_folder", "root": str(tmp_path), "split": "training"})
    for i in range(len(source)):
        assert source.image(i).shape[1:] == source.pixel_labels(i).shape == source.image_size(i) == (12 + i, 17)


def test_scenes_that_are_evaluated_on_do_not_reach_training(tmp_path: Path) -> None:
    root = scenes(tmp_path)
    cfg = {"type": "scene_folder", "root": str(root)}
    train, other = (build_training_source({**cfg, "split": split}) for split in ("training", "validation"))
    check_disjoint(train, other)
    with pytest.raises(DataError, match="evaluation images would reach training"):
        check_disjoint(train, train)


def test_a_class_above_those_of_the_list_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    root = scenes(tmp_path, classes=5)
    source = build_training_source({"type": "scene_folder", "root": str(root), "split": "training"})
    write_annotation(root, "training", "scene_0", np.full((12, 17), 9, dtype=np.uint8))  # after it was opened
    stream = Stream(source, None, built({"type": "Plain"}, 8), 0, "head", pixels=True)
    with pytest.raises(DataError, match=r"scene_0\.png has the value 9, above its 5 classes"):
        stream.batch(0, 4)
    Image.new("L", (17, 12)).save(root / "annotations" / "training" / "scene_0.png")
    label = stream.batch(0, 4)["pixel_label"]
    assert bool((label.flatten(1) == IGNORE).all(1).any()), "an image without labels is no error"
