"""Crops resized one by one and in batches: the same bits, and those of torchvision's uint8 path."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from mlomae.data.augment import Augmentation, build_augment
from mlomae.data.resample import Crops, resize_crop, resize_crops

CROPS = 300


def boxes(rows: int, columns: int, outside: int, seed: int) -> Crops:
    """Random boxes of images of this size, or larger and up to ``outside`` pixels beyond every border."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: torch.Tensor) -> torch.Tensor:
        return low + (torch.rand(CROPS, generator=generator) * (high - low + 1)).long()

    least = 2 * outside + 1 if outside else 1  # so that all reach into the image
    height, width = draw(least, torch.tensor(rows)), draw(least, torch.tensor(columns))
    top, left = draw(-outside, rows - height + outside), draw(-outside, columns - width + outside)
    return Crops(top, left, height, width, torch.zeros(CROPS, dtype=torch.bool))


@pytest.mark.parametrize(
    ("rows", "columns", "side", "outside"),
    [(32, 32, 32, 0), (32, 32, 32, 4), (32, 32, 64, 0), (64, 48, 32, 7), (17, 90, 24, 0), (1, 5, 8, 0), (96, 96, 7, 3)],
)
def test_a_batch_has_the_bits_of_its_images_and_those_of_torchvision(
    rows: int, columns: int, side: int, outside: int
) -> None:
    crops = boxes(rows, columns, outside, seed=side)
    images = torch.randint(0, 256, (CROPS, 3, rows, columns), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    batch = resize_crops(images, crops, torch.empty((CROPS, 3, side, side), dtype=torch.uint8))
    for i, (top, left, height, width) in enumerate(zip(*(c.tolist() for c in crops[:4]), strict=True)):
        alone = resize_crop(images[i], top, left, height, width, side)
        reference = TF.resized_crop(
            images[i], top, left, height, width, [side, side], InterpolationMode.BICUBIC, antialias=True
        )
        assert torch.equal(alone, reference)
        assert torch.equal(batch[i], alone)


@pytest.mark.parametrize(
    "config", [{"type": "RandomResizedCropFlip"}, {"type": "PadCropFlip"}, {"type": "Plain", "crop": 0.9}]
)
def test_the_batch_of_an_augmentation_is_its_images(config: dict[str, object]) -> None:
    augment: Augmentation = build_augment({"size": 24, **config})
    for height, width in ((32, 28), (48, 40)):  # a CPU cuts small images as a batch, others one by one
        images = torch.randint(0, 256, (90, 3, height, width), generator=torch.Generator().manual_seed(2)).byte()
        crops = augment.crops(torch.arange(90), torch.full((90,), height), torch.full((90,), width))
        cut = []
        for image, *box, flip in zip(images, *(c.tolist() for c in crops), strict=True):
            small = resize_crop(image, *box, 24)
            cut.append(small.flip(-1) if flip else small)
        for dtype in (torch.uint8, torch.float32):
            expected = torch.stack(cut).to(dtype)
            for given in (images, list(images)):
                assert torch.equal(augment.cut(given, crops, torch.empty_like(expected)), expected)
            assert torch.equal(resize_crops(images, crops, torch.empty_like(expected)), expected)


@pytest.mark.parametrize("mutation", ["bits", "table", "half"])
def test_a_mutation_changes_bits(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer bits, Catmull's other constant, and cutting instead of rounding are all seen."""
    from mlomae.data import resample

    resample._table.cache_clear()
    images = torch.randint(0, 256, (CROPS, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    crops = boxes(32, 32, 0, seed=3)
    before = resize_crops(images, crops, torch.empty_like(images))
    resample._table.cache_clear()
    if mutation == "bits":
        monkeypatch.setattr(resample, "_BITS", 12)
    elif mutation == "table":
        original = resample._weights
        monkeypatch.setattr(
            resample, "_weights", lambda n, side: original(n, side) ** 1.01 if n == side else original(n, side)[::-1]
        )
    else:
        original_rounded = resample._rounded
        monkeypatch.setattr(resample, "_rounded", lambda sums: original_rounded(sums - 0.25))
    assert not torch.equal(resize_crops(images, crops, torch.empty_like(images)), before)
    resample._table.cache_clear()
