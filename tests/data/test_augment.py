"""Augmentation: crop parameters, pixels against torchvision, and masks cut like their image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as TF

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.data.augment import PadCropFlip, Plain, RandomResizedCropFlip

RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
ALL = [RandomResizedCropFlip(24, **RAW), PadCropFlip(24, **RAW), Plain(24, **RAW)]


def keys(n: int, seed: int = 0) -> torch.Tensor:
    return random_keys.fold(random_keys.root_key("test", seed), torch.arange(n))


def full(n: int, value: int) -> torch.Tensor:
    return torch.full((n,), value)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (200, 300), (40, 400), (400, 40), (1, 1), (2, 5)])
def test_crops_lie_inside_the_image(height, width):
    crops = RandomResizedCropFlip(32).crops(keys(4000), full(4000, height), full(4000, width))
    for start, extent, limit in ((crops.top, crops.height, height), (crops.left, crops.width, width)):
        assert start.min() >= 0
        assert extent.min() >= 1
        assert (start + extent).max() <= limit


def test_scale_and_ratio_have_torchvisions_distribution():
    n, height, width = 4000, 200, 300
    crops = RandomResizedCropFlip(32).crops(keys(n), full(n, height), full(n, width))
    torch.manual_seed(0)
    blank = torch.empty(1, height, width)
    theirs = torch.tensor([RandomResizedCrop.get_params(blank, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    ours = torch.stack(crops[:4], dim=1)
    measures = {
        "area": lambda box: box[:, 2] * box[:, 3] / (height * width),
        "ratio": lambda box: box[:, 3] / box[:, 2],
        "row": lambda box: box[:, 0] / (height - box[:, 2]).clamp(min=1),
        "column": lambda box: box[:, 1] / (width - box[:, 3]).clamp(min=1),
    }
    for name, measure in measures.items():
        grid = torch.linspace(0.02, 0.98, 25)
        gap = (measure(ours).float().quantile(grid) - measure(theirs).float().quantile(grid)).abs().max()
        # 4,000 draws per side: quantiles of a variable with range about one scatter by less than 0.03.
        assert gap < 0.04, (name, gap)
    assert 0.47 < crops.flip.float().mean() < 0.53
    # Area and ratio are related (a large wide box does not fit); the rest is not; 0.06 is four deviations.
    apart = torch.stack([measures["row"](ours).float(), measures["column"](ours).float(), crops.flip.float()])
    assert (apart.corrcoef() - torch.eye(3)).abs().max() < 0.06
    area = measures["area"](ours)
    assert area.min() >= 0.195
    assert area.float().quantile(0.05) < 0.26


def test_fallback_is_the_largest_centred_box():
    crops = RandomResizedCropFlip(32, scale=(0.99, 1.0)).crops(keys(50), full(50, 100), full(50, 1000))
    assert set(crops.height.tolist()) == {100}
    assert set(crops.width.tolist()) == {133}
    assert set(crops.left.tolist()) == {433}
    tall = RandomResizedCropFlip(32, scale=(0.99, 1.0)).crops(keys(50), full(50, 1000), full(50, 100))
    assert set(tall.top.tolist()) == {433}


def test_parameters_depend_on_the_sample_alone():
    augment = RandomResizedCropFlip(32)
    together = augment.crops(keys(8), full(8, 50), full(8, 60))
    alone = augment.crops(keys(8)[5:6], full(1, 50), full(1, 60))
    assert [part[5].item() for part in together] == [part[0].item() for part in alone]
    other = augment.crops(keys(8, seed=1), full(8, 50), full(8, 60))
    assert not torch.equal(together.top, other.top)


def images(sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Noise of middling contrast: the uint8 kernel clamps overshoot between its passes, the float32 one does not."""
    torch.manual_seed(1)
    return [torch.randint(64, 192, (3, *size), dtype=torch.uint8) for size in sizes]


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
def test_pixels_equal_torchvisions_resized_crop(augment):
    """Equal to the uint8 result of torchvision bit for bit, and within 1.5 grey levels of its float32 one.

    The uint8 kernel rounds after each of its two passes, half a level each, and the second can amplify the first.
    """
    batch = images([(32, 32), (40, 24), (100, 60), (24, 24)] * 4)
    heights, widths = (torch.tensor([image.shape[axis] for image in batch]) for axis in (1, 2))
    crops = augment.crops(keys(16), heights, widths)
    result, _ = augment(batch, keys(16))
    for i, image in enumerate(batch):
        box = [part[i].item() for part in crops[:4]]
        for source, tolerance in ((image, 0), (image.float(), 1.5)):
            expected = TF.resized_crop(source, *box, [24, 24], InterpolationMode.BICUBIC, antialias=True)
            expected = expected.clamp(0, 255).flip(-1) if crops.flip[i] else expected.clamp(0, 255)
            torch.testing.assert_close(255 * result[i], expected.float(), atol=tolerance + 1e-4, rtol=0)


def test_normalisation_uses_imagenet_statistics():
    image = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    result, objects = Plain(8)(image, keys(1))
    assert objects is None
    assert result.dtype == torch.float32
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(result[0, :, 4, 4], torch.tensor(expected))


@pytest.mark.parametrize("augment", ALL, ids=lambda a: type(a).__name__)
def test_object_mask_is_cut_like_its_image(augment):
    """An image that shows its own mask: after the same cut, pixel and mask agree except at the mask's edge."""
    masks, batch = [], []
    for i, (height, width) in enumerate([(64, 64), (50, 90), (90, 50), (24, 24)] * 4):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        mask = ((y - height * 0.35) / (0.3 * height)) ** 2 + ((x - width * (0.2 + 0.03 * i)) / (0.25 * width)) ** 2 < 1
        masks.append(mask)
        batch.append((mask * 255).to(torch.uint8).expand(3, -1, -1))
    image, objects = augment(batch, keys(16), masks)
    assert objects is not None
    assert objects.dtype == torch.bool
    assert objects.shape == (16, 24, 24)
    assert 0.05 < objects.float().mean() < 0.6
    agree = (image[:, 0] > 0.5) == objects
    assert agree.float().mean(dim=(1, 2)).min() > 0.94
    flipped = (image[:, 0].flip(-1) > 0.5) == objects
    assert flipped.float().mean() < agree.float().mean() - 0.05


def test_mask_is_exact_where_nothing_is_resized():
    torch.manual_seed(0)
    masks = torch.rand(32, 24, 24) > 0.5
    batch = (masks[:, None] * 255).to(torch.uint8).expand(-1, 3, -1, -1)
    for augment in ALL[1:]:
        image, objects = augment(batch, keys(32), masks)
        assert objects is not None
        assert torch.equal(image[:, 0] > 0.5, objects)


def test_pad_crop_shifts_both_ways_and_pads_with_black():
    batch = torch.full((400, 3, 16, 16), 255, dtype=torch.uint8)
    augment = PadCropFlip(16, padding=3, **RAW)
    crops = augment.crops(keys(400), full(400, 16), full(400, 16))
    assert set(crops.top.tolist()) == set(range(-3, 4))
    image, _ = augment(batch, keys(400))
    rows = (image[:, 0].amax(dim=2) == 0).sum(dim=1)
    assert rows.tolist() == crops.top.abs().tolist()


def test_plain_takes_the_centre():
    image = torch.zeros(1, 3, 20, 40, dtype=torch.uint8)
    image[..., 10:30] = 255
    assert (Plain(20, **RAW)(image, keys(1))[0] == 1).all()
    crops = Plain(224, crop=0.875).crops(keys(1), full(1, 256), full(1, 300))
    assert [part.item() for part in crops] == [16, 38, 224, 224, False]


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomResizedCropFlip(32, scale=(0, 1)),
        lambda: RandomResizedCropFlip(32, scale=(0.5, 0.2)),
        lambda: RandomResizedCropFlip(32, ratio=(2, 1)),
        lambda: RandomResizedCropFlip(32, flip=1.5),
        lambda: PadCropFlip(32, padding=-1),
        lambda: Plain(0),
        lambda: Plain(32, crop=1.2),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()
