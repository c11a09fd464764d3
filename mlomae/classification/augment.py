"""timm's transforms of images and its mixing of batches, with random draws that are functions of a counter key.

timm and torchvision draw from the global generators of Python, NumPy and torch. `seeded` sets all three from a key and
restores them, so that an image's augmentation depends on (seed, epoch, index) alone: the same for any number of workers
or processes, and after an interruption.

Shape suffixes: B batch, C channels or (of targets) classes, H height, W width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import NAME_TO_OP, posterize
from timm.data.mixup import mixup_target
from torch import Tensor
from torchvision import transforms as T

from mlomae.common.errors import ConfigError, reason_of
from mlomae.common.random_keys import root_key, seeded
from mlomae.common.registry import Registry, check_bounds, check_choice, check_range
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD

Transform = Callable[[Image.Image], Tensor]
"""From an RGB picture to a normalised (3, H, W) float32 tensor."""
Size = tuple[int, int]
"""(height, width) in pixels."""

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"


def _timm(**options: Any) -> Any:
    try:
        return create_transform(**options)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        named = {k: options[k] for k in ("auto_augment", "re_mode", "color_jitter", "interpolation") if options.get(k)}
        said = f"{type(error).__name__}: {reason_of(error)}"
        raise ConfigError(f"timm refuses the transform {named} ({said}); see timm.data.create_transform") from error


def _posterize(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    """timm's ``posterize``, but keeping 0 bits gives a black image, as before Pillow 13, which raises a ValueError.

    RandAugment m9-mstd0.5-inc1 asks for 0 bits in about one of 600 images: a run would end within its first minutes.
    """
    return Image.new(image.mode, image.size) if bits_to_keep < 1 else posterize(image, bits_to_keep, **options)


# timm looks operations up by name
NAME_TO_OP.update({name: _posterize for name, operation in NAME_TO_OP.items() if operation is posterize})


def train_transform(
    img_size: Size,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    scale: Sequence[float] | None = (0.08, 1.0),
    ratio: Sequence[float] | None = (3 / 4, 4 / 3),
    padding: int | None = None,
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
        padding: for small images (32 px), instead of RandomResizedCrop: add a border of ``padding`` black pixels and
            crop ``img_size`` at random. Images of another size are first resized to exactly ``img_size``, whatever
            their aspect ratio. ``scale`` and ``ratio`` are not used then.
        auto_augment: timm's description of RandAugment, AutoAugment or AugMix; None for none.
        reprob, remode: probability of erasing a box and what fills it (``pixel``, ``rand`` or ``const``).

    The result draws from the global generators: call it under `seeded`. Raises ConfigError for values out of range.
    """
    if color_jitter is not None and auto_augment and "3a" not in auto_augment:
        raise ConfigError(
            f"color_jitter {color_jitter} has no effect with auto_augment '{auto_augment}'; set one of them to None"
        )
    check_range("data.augment", "[0, 1]", hflip=hflip, reprob=reprob)
    if scale is not None:
        check_bounds("data.augment", "(0, 1]", scale=scale)
    if ratio is not None:
        check_bounds("data.augment", "(0, inf)", ratio=ratio)
    crop, colours, final = _timm(
        input_size=img_size,
        is_training=True,
        separate=True,
        mean=tuple(mean),
        std=tuple(std),
        scale=scale,
        ratio=ratio,
        hflip=hflip,
        color_jitter=color_jitter,
        auto_augment=auto_augment,
        re_prob=reprob,
        re_mode=remode,
        interpolation=interpolation,
    )
    if padding is not None:
        check_range("data.augment", "[0, inf)", padding=padding)
        if interpolation == "random":
            raise ConfigError("interpolation 'random' is for RandomResizedCrop alone; choose bicubic or bilinear")
        resize = T.Resize(img_size, T.InterpolationMode(interpolation))
        crop = T.Compose([resize, T.RandomCrop(img_size, padding), T.RandomHorizontalFlip(hflip)])
    return T.Compose([crop, colours, final])


def eval_transform(
    img_size: Size,
    crop_pct: float = 0.875,
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bicubic",
    crop_mode: Literal["center", "squash", "border"] = "center",
) -> Transform:
    """Resize the shorter side to img_size / crop_pct (224: 256), crop the centre, normalise; nothing is random.

    ``crop_mode``: timm's, "squash" resizes both sides to that length, "border" the longer one, with borders beside it.

    With crop_pct 1 an image that has the size already keeps its pixels: the choice for 32 px sets. For a rectangular
    ``img_size`` the image is resized, keeping its aspect ratio, to the smallest size that covers it.
    """
    check_range("data.evaluate", "(0, 1]", crop_pct=crop_pct)
    options = {"mean": tuple(mean), "std": tuple(std), "interpolation": interpolation, "crop_mode": crop_mode}
    check_choice("data.evaluate", ("center", "squash", "border"), crop_mode=crop_mode)
    return _timm(input_size=img_size, is_training=False, crop_pct=crop_pct, **options)


_WITHOUT: dict[str, Any] = {"auto_augment": None, "reprob": 0.0}
_TRANSFORMS = Registry[Transform]("training transform")
_TRANSFORMS.register("rand_augment")(train_transform)
_TRANSFORMS.register("crop_flip")(partial(train_transform, **_WITHOUT))  # as in MAE's linear probe
_TRANSFORMS.register("pad_crop")(partial(train_transform, padding=4, **_WITHOUT))


def build_transform(options: dict[str, Any], img_size: Size) -> Transform:
    """The training transform that ``options["type"]`` names (rand_augment, crop_flip or pad_crop), with the others.

    Raises ConfigError for an unknown type or option, and what `train_transform` raises.
    """
    kind, others = options.get("type"), {k: v for k, v in options.items() if k != "type"}
    unused: dict[str, Any] = {"scale": None, "ratio": None} if kind == "pad_crop" else {"padding": None}
    return _TRANSFORMS.build(kind, others, img_size=img_size, **unused)


# --- mixing batches ---------------------------------------------------------------------------------------------------


def mix_key(seed: int, iteration: int, rank: int = 0) -> int:
    """The key of the draws with which one process mixes its batch of one training step."""
    return root_key(seed, "mix", iteration, rank)


class BatchMix:
    """timm's mixup, cutmix and label smoothing as a function of (batch, key): image i is paired with image B - 1 - i.

    Sources: Zhang et al., ICLR 2018 (mixup); Yun et al., ICCV 2019 (CutMix); defaults of MAE's fine-tuning.

    Args:
        mixup, cutmix: parameter of each Beta(a, a); 0 switches it off.
        prob: probability of mixing at all. switch_prob: probability of cutmix where both are on.
        mode: one draw for the ``batch``, for each ``pair`` or for each ``elem``.

    Raises ConfigError for values out of range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
        mode: str = "batch",
    ) -> None:
        check_range("data.mix", "[0, 1]", prob=prob, switch_prob=switch_prob, label_smoothing=label_smoothing)
        check_range("data.mix", "[0, inf)", mixup=mixup, cutmix=cutmix)
        check_choice("data.mix", ("batch", "pair", "elem"), mode=mode)
        self._mix = Mixup(mixup, cutmix, None, prob, switch_prob, mode, True, label_smoothing, num_classes)
        self._mix.mixup_enabled = self.enabled = mixup > 0 or cutmix > 0

    def check_batch(self, size: int) -> None:
        """Raise ConfigError if a process's batch of ``size`` images cannot be split into pairs."""
        if self.enabled and size % 2:
            raise ConfigError(
                f"mixup and cutmix pair the images of a batch, and {size} in a process is odd; "
                "choose an even batch size a process, or mixup 0 and cutmix 0"
            )

    def __call__(self, image_BCHW: Tensor, label_B: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Mixed images, in a new tensor, and soft targets (B, C) float32; ``key`` as from `mix_key`."""
        self.check_batch(len(image_BCHW))
        if not self.enabled:  # timm would mix nothing, but refuse a batch of odd size
            return image_BCHW, mixup_target(label_B, self._mix.num_classes, smoothing=self._mix.label_smoothing)
        with seeded(key):
            mixed_BCHW, target_BC = self._mix(image_BCHW.clone(), label_B)
        return mixed_BCHW, target_BC
