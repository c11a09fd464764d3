"""Transforms and mixing of the classification benchmark: functions of a key, with timm's meaning."""

import pickle
import random
from contextlib import nullcontext
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import posterize
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn import functional as F

from mlomae.classification import augment
from mlomae.classification.augment import (
    BatchMix,
    build_transform,
    eval_transform,
    mix_key,
    train_transform,
)
from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import seeded
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD


def picture(height: int = 40, width: int = 56) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def draws() -> tuple[float, float, float, float]:
    return random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), float(torch.randn(1))  # noqa: NPY002


@pytest.mark.parametrize("key", [0, 1, -1, 2**63 - 1, -(2**63), 1 << 40])
def test_a_key_decides_all_three_generators_and_leaves_no_trace(key: int) -> None:
    with seeded(7):
        draws()  # an odd number of normal numbers: the second of a pair must not survive into the next block
        with seeded(key):
            first = draws()
        middle = draws()
    with seeded(7):
        draws()
        assert draws() == middle  # as if the block had not been
        with seeded(key):
            assert draws() == first
    with seeded(key + 1 if key < 0 else key - 1):
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_minus_k_is_not_k_and_python_and_numpy_do_not_repeat_each_other() -> None:
    found = []
    for key in (5, -5, 5 + (7 << 32)):
        with seeded(key):
            found += [random.random(), float(np.random.rand())]  # noqa: NPY002
    assert len(set(found)) == 6
    random.seed(5 + (7 << 32))
    np.random.seed([5, 7])  # noqa: NPY002
    assert random.random() == float(np.random.rand())  # noqa: NPY002  # what would happen without the third word


def test_states_come_back_after_an_error() -> None:
    with seeded(3):
        expected = draws()

    def fail() -> None:
        with seeded(4):
            draws()
            raise KeyError("x")

    with seeded(3):
        with pytest.raises(KeyError):
            fail()
        assert draws() == expected


def pad_crop(size: tuple[int, int], **options: Any) -> Any:
    return build_transform({"type": "pad_crop", **options}, size)


TRAINING = {
    "finetune": lambda: train_transform((24, 24)),
    "rectangle": lambda: train_transform((16, 32), interpolation="random"),
    "jitter": lambda: train_transform((24, 24), auto_augment=None, color_jitter=0.4, remode="rand", reprob=1.0),
    "three-augment": lambda: train_transform((24, 24), auto_augment="3a", color_jitter=0.3),
    "linear": lambda: build_transform({"type": "crop_flip"}, (24, 24)),
    "small": lambda: pad_crop((24, 24), auto_augment="rand-m9-mstd0.5-inc1", reprob=0.5),
}


@pytest.mark.parametrize("name", TRAINING)
def test_training_transforms_are_functions_of_the_key(name: str) -> None:
    transform = TRAINING[name]()
    pickle.dumps(transform)  # spawned workers need it

    def at(key: int) -> Tensor:
        with seeded(key):
            out: Tensor = transform(picture())
        return out

    first = at(1)
    random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    assert torch.equal(at(1), first)
    assert first.shape == ((3, 16, 32) if name == "rectangle" else (3, 24, 24))
    assert first.dtype == torch.float32
    assert sum(not torch.equal(at(key), first) for key in range(2, 6)) >= 3


def test_fine_tuning_transform_is_timms() -> None:
    theirs = create_transform(
        input_size=24,
        is_training=True,
        color_jitter=None,  # type: ignore[arg-type]
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    ours = train_transform((24, 24))
    for key in range(20):
        with seeded(key):
            expected = theirs(picture())
        with seeded(key):
            assert torch.equal(ours(picture()), expected)


@pytest.mark.parametrize("policy", ["rand-m10-n3-inc1", "rand-m0-n3", "v0", "v0r", "augmix-m10"])
def test_posterizing_to_no_bits_is_black_and_no_error(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        transform = train_transform((8, 8), auto_augment=policy, reprob=0.0)
        for key in range(60):
            with seeded(key):
                transform(picture(12, 12))

    run()
    black = augment._posterize(picture(), 0)
    assert (black.mode, black.size, black.getextrema()) == ("RGB", (56, 40), ((0, 0),) * 3)
    assert augment._posterize(picture(), 3) == posterize(picture(), 3)
    for name, operation in augment.NAME_TO_OP.items():
        if operation is augment._posterize:
            monkeypatch.setitem(augment.NAME_TO_OP, name, posterize)
    if int(PIL.__version__.split(".")[0]) >= 13 and policy not in ("v0r", "augmix-m10"):  # which seldom go so far
        with pytest.raises(ValueError, match="bits"):
            run()


def test_pad_crop_shifts_by_at_most_the_padding() -> None:
    transform = pad_crop((16, 16), padding=2, hflip=0.0, mean=(0, 0, 0), std=(1, 1, 1))
    image = picture(16, 16)
    padded = F.pad(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, (2, 2, 2, 2))
    windows = {(y, x): padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)}
    found = set()
    for key in range(100):
        with seeded(key):
            out = transform(image)
        found |= {place for place, window in windows.items() if torch.allclose(out, window, atol=1e-6)}
    assert len(found) > 20
    assert max(map(max, found)) == 4
    with seeded(0):
        assert transform(picture(40, 56)).shape == (3, 16, 16)


def test_evaluation_keeps_the_pixels_of_an_image_that_has_the_size() -> None:
    image = picture(32, 32)
    plain = eval_transform((32, 32), 1.0, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert torch.equal(plain, torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
    assert not torch.equal(eval_transform((32, 32), 0.875, mean=(0, 0, 0), std=(1, 1, 1))(image), plain)


@pytest.mark.parametrize(
    ("size", "shape"), [((28, 28), (40, 60)), ((28, 28), (60, 40)), ((16, 40), (33, 50)), ((40, 16), (33, 50))]
)
def test_evaluation_covers_the_target_and_cuts_the_centre(size: tuple[int, int], shape: tuple[int, int]) -> None:
    height, width = shape
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 3)).astype(np.uint8)
    out = eval_transform(size, mean=(0.5, 0.5, 0.5), std=(1, 1, 1))(Image.fromarray(ramp))
    assert out.shape == (3, *size)
    assert abs(float(out.mean())) < 0.02  # symmetric about the middle of the ramp
    assert bool((out.diff(dim=2) > 0).float().mean() > 0.9)
    target_h, target_w = out.shape[1:]
    scale = max(target_h / 0.875 / height, target_w / 0.875 / width)
    span = float(out[0, 0, -1] - out[0, 0, 0])
    assert span == pytest.approx((target_w - 1) / (scale * width), abs=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eval_transform((8, 8), 1.5), "crop_pct must be inside .* got 1.5"),
        (lambda: train_transform((8, 8), scale=(0.5, 0.1)), "scale"),
        (lambda: train_transform((8, 8), ratio=(0.0, 1.0)), "ratio"),
        (lambda: train_transform((8, 8), hflip=2.0), "hflip must be inside .* got 2.0"),
        (lambda: train_transform((8, 8), reprob=-0.1), "reprob must be inside .* got -0.1"),
        (lambda: train_transform((8, 8), auto_augment="rand-x7"), "timm refuses.*rand-x7"),
        (lambda: train_transform((8, 8), auto_augment="unheard"), "timm refuses.*unheard"),
        (lambda: train_transform((8, 8), remode="stars"), "timm refuses.*stars"),
        (lambda: train_transform((8, 8), interpolation="cubic"), "timm refuses.*cubic"),
        (lambda: train_transform((8, 8), color_jitter=0.4), "color_jitter 0.4 has no effect"),
        (lambda: pad_crop((8, 8), padding=-1), "padding must be at least 0; got -1"),
        (lambda: pad_crop((8, 8), interpolation="random"), "'random'"),
        (lambda: BatchMix(3, mixup=-1.0), "mixup must be at least 0; got -1"),
        (lambda: BatchMix(3, prob=1.1), "prob must be inside .* got 1.1"),
        (lambda: BatchMix(3, mode="group"), "'group'"),
    ],
)
def test_bad_options_are_one_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 3, 16, 16, generator=generator), torch.arange(size) % 4


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixing_is_timms_and_a_function_of_the_key(mode: str) -> None:
    image, label = batch()
    before = image.clone()
    mix = BatchMix(4, mode=mode)
    kinds = set()
    for key in (mix_key(0, t) for t in range(8)):
        mixed, target = mix(image, label, key)
        assert torch.equal(image, before)  # left alone
        with seeded(key):
            expected = Mixup(0.8, 1.0, mode=mode, label_smoothing=0.1, num_classes=4)(image.clone(), label)
        assert torch.equal(mixed, expected[0])
        assert torch.equal(target, expected[1])
        torch.testing.assert_close(target.sum(dim=1), torch.ones(6))
        kinds.add(bool((mixed == image).flatten(1).any(dim=1).all()))  # cutmix leaves pixels, mixup does not
    assert kinds == ({True, False} if mode == "batch" else kinds)


def test_targets_weigh_the_pair_by_its_share_of_pixels() -> None:
    label = torch.tensor([0, 1, 2, 3])
    image = label.float().view(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous()
    for mix in (BatchMix(4, mixup=0.0, label_smoothing=0.0), BatchMix(4, cutmix=0.0, label_smoothing=0.0)):
        for t in range(5):
            mixed, target = mix(image, label, mix_key(1, t))
            torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), target @ torch.arange(4.0))


def test_mix_keys_differ_by_seed_iteration_and_rank() -> None:
    assert len({mix_key(seed, t, rank) for seed in range(3) for t in range(20) for rank in range(4)}) == 240


def test_an_odd_batch_is_refused_only_where_pairs_are_needed() -> None:
    image, label = batch(5)
    with pytest.raises(ConfigError, match="5 in a process is odd") as error:
        BatchMix(4)(image, label, 0)
    assert "\n" not in str(error.value)
    mixed, target = BatchMix(4, mixup=0.0, cutmix=0.0, label_smoothing=0.2)(image, label, 0)
    assert torch.equal(mixed, image)
    torch.testing.assert_close(target, F.one_hot(label, 4) * 0.8 + 0.05)


def test_unseeded_mixing_would_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation: without the key the comparison with timm above must fail."""
    monkeypatch.setattr(augment, "seeded", lambda key: nullcontext())
    image, label = batch()
    first, second = (BatchMix(4)(image, label, 1)[0] for _ in range(2))
    assert not torch.equal(first, second)
