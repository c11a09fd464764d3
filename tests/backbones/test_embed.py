"""`mlomae.embed`: the features of the evaluation, from every kind of weights and images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_samples import write_checkpoint, write_official
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

import mlomae
from mlomae.common.errors import CheckpointError, ConfigError, DataError
from mlomae.data import MemorySource, build_augment

PIXELS = torch.randint(256, (5, 3, 20, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def plain(size: int) -> Tensor:
    images, _ = build_augment({"type": "Plain", "size": size})(PIXELS, torch.zeros(5, dtype=torch.int64))
    return images


@pytest.mark.parametrize(("write", "options"), [(write_checkpoint, {}), (write_official, {"model": {"num_heads": 2}})])
def test_features_are_the_encoders_on_evaluation_pixels(write: Any, options: Any, tmp_path: Path) -> None:
    encoder = write(tmp_path / "weights.pth")
    with torch.no_grad():
        tokens_BLD = encoder(plain(encoder.img_size))
    found = mlomae.embed(tmp_path / "weights.pth", PIXELS, batch_size=2, **options)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, tokens_BLD[:, 1:].mean(dim=1), rtol=1e-5, atol=1e-6)
    class_tokens = mlomae.embed(tmp_path / "weights.pth", PIXELS, pooling="cls", **options)
    torch.testing.assert_close(class_tokens, tokens_BLD[:, 0])


def test_images_of_every_kind_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    side = write_checkpoint(path).img_size
    expected = mlomae.embed(path, PIXELS)
    for folder in ("flat", "classes/all"):
        (tmp_path / folder).mkdir(parents=True)
        for i, image_CHW in enumerate(PIXELS):
            Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).save(tmp_path / folder / f"{i}.png")
    source = MemorySource("x", "all", "x", ["a"], PIXELS, torch.zeros(5).long().numpy(), ["x"])
    given: list[Any] = [
        plain(side),
        source,
        TensorDataset(PIXELS, torch.arange(5)),
        tmp_path / "flat",
        tmp_path / "classes",
    ]
    for images in given:
        assert torch.equal(mlomae.embed(path, images), expected), type(images)


def test_another_image_size_interpolates_positions(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    side = write_checkpoint(path).img_size
    larger = mlomae.embed(path, PIXELS, img_size=2 * side)
    assert larger.shape == mlomae.embed(path, PIXELS).shape
    assert torch.equal(mlomae.embed(path, plain(2 * side), img_size=2 * side), larger)


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write_checkpoint(path)
    with pytest.raises(ConfigError, match=r"embed: pooling must be one of .*; got 'max'"):
        mlomae.embed(path, PIXELS, pooling="max")
    with pytest.raises(ConfigError, match=r"must be \(N, 3, 16, 16\); give uint8"):
        mlomae.embed(path, PIXELS.float())
    with pytest.raises(CheckpointError, match="does not exist"):
        mlomae.embed(tmp_path / "nowhere.pth", PIXELS)
    with pytest.raises(DataError, match="does not exist"):
        mlomae.embed(path, tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images"):
        mlomae.embed(path, PIXELS[:0])
