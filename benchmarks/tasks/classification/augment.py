"""The transforms of fine-tuning, linear probe and evaluation, from timm; random ones become functions of a counter key.

timm and torchvision draw from the global generators of python, numpy and torch. `seeded` sets all three from a key and
puts them back, so that an image's augmentation depends on (seed, epoch, index) alone: the same for any number of
workers or processes, and after an interruption.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, posterize
from torch import Tensor
from torchvision import transforms as T

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Registry
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD

Transform = Callable[[Image.Image], Tensor]
"""From an RGB picture to a normalised (3, H, W) float32 tensor."""
Size = int | Sequence[int]
"""A side, or (height, width), in pixels."""

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
_NEITHER: dict[str, Any] = {"auto_augment": None, "reprob": 0.0}


def _sides(img_size: Size) -> tuple[int, int]:
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(f"img_size {img_size} is not a side or (height, width) in pixels; give e.g. 224")
    return sides


def check_shares(**shares: float) -> None:
    """Raise ConfigError naming the first that is not a probability."""
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} {value} must be a probability in [0, 1]")


def _check_range(name: str, values: Sequence[float], highest: float) -> tuple[float, float]:
    if len(values) != 2 or not 0 < values[0] <= values[1] <= highest:
        limit = "" if highest == float("inf") else f" <= {highest:g}"
        raise ConfigError(f"{name} {tuple(values)} must satisfy 0 < low <= high{limit}")
    return values[0], values[1]


def _timm(**options: Any) -> Any:
    try:
        return create_transform(**options)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        named = {k: options[k] for k in ("auto_augment", "re_mode", "color_jitter", "interpolation") if options.get(k)}
        raise ConfigError(f"timm refuses the transform {named} ({said}); see timm.data.create_transform") from error


def _posterize(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    """timm's, of which keeping 0 bits is a black image, as it was; Pillow 13 refuses it with a ValueError.

    RandAugment m9-mstd0.5-inc1 asks for 0 bits in one of some 600 images: a run would end within its first minutes.
    """
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    posterized: Image.Image = posterize(image, bits_to_keep, **options)
    return posterized


def _repair(policy: Any) -> None:
    """Replace posterize in everything below a transform of timm.data.auto_augment."""
    if isinstance(policy, AugmentOp):
        policy.aug_fn = _posterize if policy.aug_fn is posterize else policy.aug_fn
        return
    held = [getattr(policy, name, ()) for name in ("transforms", "ops", "policy")]
    for part in policy if isinstance(policy, list) else [part for parts in held for part in parts]:
        _repair(part)


def _training_stages(
    sides: tuple[int, int], color_jitter: Any, auto_augment: str | None, reprob: float, **options: Any
) -> tuple[Transform, Transform, Transform]:
    """Crop and flip; colours or RandAugment; to a tensor, normalise and erase."""
    if color_jitter is not None and auto_augment and "3a" not in auto_augment:
        raise ConfigError(
            f"color_jitter {color_jitter} has no effect with auto_augment '{auto_augment}'; set one of them to None"
        )
    check_shares(hflip=options["hflip"], reprob=reprob)
    stages: tuple[Transform, Transform, Transform] = _timm(
        input_size=sides,
        is_training=True,
        separate=True,
        color_jitter=color_jitter,
        auto_augment=auto_augment,
        re_prob=reprob,
        **options,
    )
    _repair(stages[1])
    return stages


def train_transform(
    img_size: Size,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    color_jitter: float | Sequence[float] | None = None,
    auto_augment: str | None = RAND_AUGMENT,
    reprob: float = 0.25,
    remode: str = "pixel",
    interpolation: str = "bicubic",
) -> Transform:
    """RandomResizedCrop, flip, RandAugment, normalise, random erasing: the recipe of MAE's fine-tuning.

    Args:
        mean, std: per channel, in units of the [0, 1] range. scale: area of the crop, share of the image.
        ratio: width / height of the crop. color_jitter: strength, only without ``auto_augment``.
        auto_augment: timm's description of RandAugment, AutoAugment or AugMix; None for none.
        reprob, remode: probability of erasing a box and what fills it (``pixel``, ``rand`` or ``const``).

    The result draws from the global generators: call it under `seeded`. Raises ConfigError for values out of range.
    """
    stages = _training_stages(
        _sides(img_size),
        color_jitter,
        auto_augment,
        reprob,
        mean=tuple(mean),
        std=tuple(std),
        scale=_check_range("scale", scale, 1.0),
        ratio=_check_range("ratio", ratio, float("inf")),
        hflip=hflip,
        re_mode=remode,
        interpolation=interpolation,
    )
    return T.Compose(stages)


def crop_flip_transform(img_size: Size, **options: Any) -> Transform:
    """RandomResizedCrop and flip alone, as for MAE's linear probe; options as `train_transform` has them."""
    return train_transform(img_size, **{**_NEITHER, **options})


def pad_crop_transform(
    img_size: Size,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    padding: int = 4,
    hflip: float = 0.5,
    color_jitter: float | Sequence[float] | None = None,
    auto_augment: str | None = None,
    reprob: float = 0.0,
    remode: str = "pixel",
    interpolation: str = "bicubic",
) -> Transform:
    """For small images (32 px): black border of ``padding`` pixels, random cut of ``img_size``, flip.

    Images of another size are first resized to exactly ``img_size``, whatever their aspect.
    """
    if padding < 0:
        raise ConfigError(f"padding {padding} is negative; give pixels, e.g. 4")
    if interpolation == "random":
        raise ConfigError("interpolation 'random' is for RandomResizedCrop alone; choose bicubic or bilinear")
    sides = _sides(img_size)
    options = {"mean": tuple(mean), "std": tuple(std), "re_mode": remode, "interpolation": interpolation}
    _, colours, final = _training_stages(sides, color_jitter, auto_augment, reprob, hflip=hflip, **options)
    resize = T.Resize(sides, T.InterpolationMode(interpolation))
    return T.Compose([resize, T.RandomCrop(sides, padding), T.RandomHorizontalFlip(hflip), colours, final])


def eval_transform(
    img_size: Size,
    crop_pct: float = 0.875,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bicubic",
) -> Transform:
    """Shorter side to img_size / crop_pct (224: 256), centre cut, normalise; nothing random.

    With crop_pct 1 an image that has the size already keeps its pixels: the choice for 32 px sets. A rectangle is
    covered by the smallest image of the same aspect.
    """
    if not 0 < crop_pct <= 1:
        raise ConfigError(f"crop_pct {crop_pct} must be in (0, 1], the share of the shorter side that is seen")
    transform: Transform = _timm(
        input_size=_sides(img_size),
        is_training=False,
        crop_pct=crop_pct,
        mean=tuple(mean),
        std=tuple(std),
        interpolation=interpolation,
    )
    return transform


_TRANSFORMS = Registry[Transform]("training transform")
_TRANSFORMS.register("rand_augment")(train_transform)
_TRANSFORMS.register("crop_flip")(partial(train_transform, **_NEITHER))  # the registry reads the options' names
_TRANSFORMS.register("pad_crop")(pad_crop_transform)


def build_transform(options: dict[str, Any], img_size: Size) -> Transform:
    """The training transform that ``options["type"]`` names (rand_augment, crop_flip or pad_crop), with the others.

    Raises ConfigError for an unknown type or option, and what the transforms raise.
    """
    return _TRANSFORMS.build(options.get("type"), {k: v for k, v in options.items() if k != "type"}, img_size=img_size)
