"""Augmentation as a function of (key, image): the key alone decides crop and flip.

Parameters are drawn for the whole batch at once. The crops are resized as uint8, image by image or as a batch
(`mlomae.data.resample`); flips and normalisation follow on the device of the batch.

Shape suffixes: B batch, C channels, H height, W width, S output side.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from mlomae.common import random_keys
from mlomae.common.registry import Registry, check_bounds, check_range
from mlomae.data.resample import Crops, resize_crop, resize_crops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
AUGMENT_SALT = 1
"""The salt of ``random_keys.uniform`` that augmentation uses; other consumers of a sample's key take another."""

_ATTEMPTS = 10
_SMALL = 32  # pixels a side up to which a CPU resizes a batch faster than its images one by one
_CHUNK = 2**18  # floats that stay in the cache of a core


@dataclass(eq=False)
class Augmentation:
    """Crop, resize to ``size`` x ``size`` (bicubic, antialiased), flip, normalise. Subclasses say which crop.

    ``mean`` and ``std`` are per channel, in units of the [0, 1] range; ImageNet's by default. ``reduced_decoding``:
    where a crop stays at least twice as large as the result, a `Stream` decodes large JPEGs at 1/2, 1/4 or 1/8 of their
    size, which takes a fraction of the time and changes pixels slightly. Raises ConfigError for a value out of range.
    """

    size: int
    _: KW_ONLY
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    reduced_decoding: bool = False

    def __post_init__(self) -> None:
        check_range("augmentation", "[1, inf)", size=self.size)

    def crops(self, keys: Tensor, heights: Tensor, widths: Tensor) -> Crops:
        """Crop boxes for images of the given sizes (each (B,) int64) and keys (B,) int64."""
        raise NotImplementedError

    def __call__(
        self, images: Sequence[Tensor] | Tensor, keys: Tensor, objects: Sequence[Tensor] | Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Augment a batch.

        Args:
            images: B tensors (3, H, W) uint8, or one (B, 3, H, W).
            keys: (B,) int64, one per sample.
            objects: B tensors (H, W) bool, cropped by the same boxes (nearest pixel; False outside the image).

        Returns:
            (B, 3, S, S) float32 normalised, and (B, S, S) bool or None.
        """
        height_B, width_B = torch.tensor([image.shape[-2:] for image in images]).unbind(dim=1)
        crops = self.crops(keys, height_B, width_B)
        image = self.normalise(self.cut(images, crops))
        return image, None if objects is None else self.cut_maps(objects, crops, height_B, width_B, False)

    def cut(self, images: Sequence[Tensor] | Tensor, crops: Crops, out_BCSS: Tensor | None = None) -> Tensor:
        """The boxes of ``crops``, resized and mirrored, on the images' device: (B, 3, S, S) uint8, or ``out``, which
        may be float32 and then holds whole numbers, too."""
        first = images[0]
        if out_BCSS is None:
            shape = (len(images), 3, self.size, self.size)
            out_BCSS = torch.empty(shape, dtype=torch.uint8, device=first.device)
        if first.device.type != "cpu" or max(first.shape) <= _SMALL:
            if not isinstance(images, Tensor) and all(image.shape == first.shape for image in images):
                images = torch.stack(list(images))
            if isinstance(images, Tensor):
                return resize_crops(images, crops, out_BCSS)
        boxes, flips = torch.stack(crops[:4], dim=1).tolist(), crops.flip.tolist()
        for out, image, (top, left, height, width), flip in zip(out_BCSS, images, boxes, flips, strict=True):
            out.copy_(resize_crop(image, top, left, height, width, self.size))
            if flip:
                out.copy_(out.flip(-1))
        return out_BCSS

    def normalise(self, image_BCSS: Tensor, out_BCSS: Tensor | None = None) -> Tensor:
        """(B, 3, S, S) float32 of crops, on their device; into ``out`` if given, which may be the crops themselves."""
        device = image_BCSS.device
        # on a CPU in chunks that fit its cache
        count = max(1, _CHUNK // image_BCSS[0].numel()) if device.type == "cpu" else len(image_BCSS)
        mean, std = (_grey_levels(tuple(values), device) for values in (self.mean, self.std))
        out_BCSS = torch.empty(image_BCSS.shape, device=device) if out_BCSS is None else out_BCSS
        for chunk, out in zip(image_BCSS.split(count), out_BCSS.split(count), strict=True):
            out.copy_(chunk).sub_(mean).div_(std)
        return out_BCSS

    def cut_maps(
        self, maps: Sequence[Tensor] | Tensor, crops: Crops, height_B: Tensor, width_B: Tensor, outside: int | bool
    ) -> Tensor:
        """Nearest-pixel crops for any mixture of image sizes, by one gather from the concatenated maps."""
        centre_S = torch.arange(self.size) + 0.5
        row_BS = crops.top[:, None] + (centre_S * crops.height[:, None] / self.size).floor().long()
        column_BS = crops.left[:, None] + (centre_S * crops.width[:, None] / self.size).floor().long()
        column_BS = torch.where(crops.flip[:, None], column_BS.flip(-1), column_BS)
        bottom_B1, right_B1 = height_B[:, None], width_B[:, None]
        row_inside_BS = (row_BS >= 0) & (row_BS < bottom_B1)
        column_inside_BS = (column_BS >= 0) & (column_BS < right_B1)
        row_BS = row_BS.clamp(min=torch.zeros_like(bottom_B1), max=bottom_B1 - 1)
        column_BS = column_BS.clamp(min=torch.zeros_like(right_B1), max=right_B1 - 1)
        area_B = height_B * width_B
        start_B11 = (area_B.cumsum(0) - area_B)[:, None, None]
        pixels = torch.cat([map_HW.reshape(-1) for map_HW in maps])
        cut_BSS = pixels[start_B11 + row_BS[:, :, None] * width_B[:, None, None] + column_BS[:, None, :]]
        return torch.where(row_inside_BS[:, :, None] & column_inside_BS[:, None, :], cut_BSS, outside)


_AUGMENTATIONS = Registry[Augmentation]("augmentation")


@_AUGMENTATIONS.register("RandomResizedCropFlip")
@dataclass(eq=False, kw_only=True)
class RandomResizedCropFlip(Augmentation):
    """A box of random area (``scale``, share of the image) and aspect (``ratio``, width / height), then a flip.

    As torchvision's RandomResizedCrop: the first of ten attempts that fits, else the largest centred box of an allowed
    ratio. ``flip`` is the probability of a horizontal flip.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("augmentation", "(0, 1]", scale=self.scale)
        check_bounds("augmentation", "(0, inf)", ratio=self.ratio)
        check_range("augmentation", "[0, 1]", flip=self.flip)

    def crops(self, keys: Tensor, heights: Tensor, widths: Tensor) -> Crops:
        draws = random_keys.uniform(keys, 2 * _ATTEMPTS + 3, salt=AUGMENT_SALT).double()
        area_BA = _between(draws[:, :_ATTEMPTS], *self.scale) * (heights * widths)[:, None]
        logs = [math.log(value) for value in self.ratio]
        ratio_BA = _between(draws[:, _ATTEMPTS : 2 * _ATTEMPTS], logs[0], logs[1]).exp()
        width_BA, height_BA = (area_BA * ratio_BA).sqrt().round().long(), (area_BA / ratio_BA).sqrt().round().long()
        fits_BA = (width_BA > 0) & (width_BA <= widths[:, None]) & (height_BA > 0) & (height_BA <= heights[:, None])
        first = fits_BA.int().argmax(dim=1, keepdim=True)  # the first maximum; 0 if none fits, replaced below
        fallback_width = torch.minimum(widths, (heights * self.ratio[1]).round().long()).clamp(min=1)
        fallback_height = torch.minimum(heights, (widths / self.ratio[0]).round().long()).clamp(min=1)
        found = fits_BA.any(dim=1)
        width = torch.where(found, width_BA.gather(1, first)[:, 0], fallback_width)
        height = torch.where(found, height_BA.gather(1, first)[:, 0], fallback_height)
        top_room, left_room = heights - height, widths - width
        top = torch.where(found, _integer(draws[:, -3], top_room), top_room // 2)
        left = torch.where(found, _integer(draws[:, -2], left_room), left_room // 2)
        return Crops(top, left, height, width, draws[:, -1] < self.flip)


@_AUGMENTATIONS.register("PadCropFlip")
@dataclass(eq=False, kw_only=True)
class PadCropFlip(Augmentation):
    """The classic CIFAR recipe: an image padded with black by ``padding`` output pixels, a random crop, then a flip."""

    padding: int = 4
    flip: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("augmentation", "[0, inf)", padding=self.padding)
        check_range("augmentation", "[0, 1]", flip=self.flip)

    def crops(self, keys: Tensor, heights: Tensor, widths: Tensor) -> Crops:
        draws = random_keys.uniform(keys, 3, salt=AUGMENT_SALT).double()
        pad_y, pad_x = heights * self.padding // self.size, widths * self.padding // self.size
        top, left = _integer(draws[:, 0], 2 * pad_y) - pad_y, _integer(draws[:, 1], 2 * pad_x) - pad_x
        return Crops(top, left, heights, widths, draws[:, 2] < self.flip)


@_AUGMENTATIONS.register("Plain")
@dataclass(eq=False, kw_only=True)
class Plain(Augmentation):
    """No randomness: the centred square whose side is ``crop`` times the shorter side, resized (timm's ``crop_pct``).

    ``crop=0.875`` is the usual "resize to 256, cut 224" of ImageNet evaluation.
    """

    crop: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("augmentation", "(0, 1]", crop=self.crop)

    def crops(self, keys: Tensor, heights: Tensor, widths: Tensor) -> Crops:
        side = (torch.minimum(heights, widths) * self.crop).round().long().clamp(min=1)
        return Crops((heights - side) // 2, (widths - side) // 2, side, side, torch.zeros_like(side, dtype=torch.bool))


@functools.lru_cache(maxsize=8)
def _grey_levels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1) of channels in [0, 1]. Kept: each copy from the CPU would wait for a GPU."""
    return 255 * torch.tensor(values, device=device).view(-1, 1, 1)


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draws


def _integer(draws: Tensor, room: Tensor) -> Tensor:
    """Uniform integers in 0..room (inclusive) from draws in (0, 1)."""
    return torch.minimum((draws * (room + 1)).floor().long(), room)


def build_augment(cfg: dict[str, Any]) -> Augmentation:
    """Build the augmentation that ``cfg`` describes: ``type`` names the class, the other keys are its arguments.

    Raises ConfigError for an unknown type or key.
    """
    return _AUGMENTATIONS.build(cfg.get("type"), {k: v for k, v in cfg.items() if k != "type"})
