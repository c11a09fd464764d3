"""The encoder is timm's ViT: same keys, same features; plus the positions and the errors."""

import math

import pytest
import timm
import torch
from timm.models import VisionTransformer
from torch import nn

from mlomae.common.errors import ConfigError
from mlomae.models import SIZES, ViT, create_encoder
from mlomae.models.vit import sincos_positions

PATCH = {size: 14 if size == "huge" else 16 for size in SIZES}


def timm_model(size: str, **overrides: int) -> nn.Module:
    name = f"vit_{size}_patch{PATCH[size]}_224"
    return timm.create_model(name, pretrained=False, num_classes=0, weight_init="skip", **overrides)


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Away from the initial zeros and ones, where a swapped or missing parameter would not show."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.copy_(torch.empty_like(parameter).normal_(0, fan_in**-0.5, generator=generator))
    return model.eval()


@torch.no_grad()
def assert_same_features(ours: ViT, theirs: nn.Module) -> None:
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, ours.img_size, ours.img_size, generator=torch.Generator().manual_seed(1))
    features = ours(images)
    assert features.std() > 0.1
    torch.testing.assert_close(features, theirs.eval().forward_features(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_state_dict_has_the_keys_and_shapes_of_timm_at_full_depth(size: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_encoder(size, 224, PATCH[size]), timm_model(size)
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.num_heads == theirs.blocks[0].attn.num_heads


@pytest.mark.parametrize(
    ("size", "depth"), [("tiny", 12), ("small", 12), ("base", 12), ("large", 2), ("huge", 2)], ids=lambda x: str(x)
)
def test_features_equal_timm(size: str, depth: int) -> None:
    assert_same_features(create_encoder(size, 224, PATCH[size], depth=depth), timm_model(size, depth=depth))


@pytest.mark.parametrize("patch_size", [2, 4])
def test_features_equal_timm_on_32_pixels(patch_size: int) -> None:
    ours = create_encoder("tiny", 32, patch_size, depth=2)
    theirs = VisionTransformer(32, patch_size, num_classes=0, embed_dim=192, depth=2, num_heads=3)
    assert_same_features(ours, theirs)


def test_overrides_replace_the_named_size() -> None:
    model = create_encoder("base", 32, 8, embed_dim=48, depth=3, num_heads=4)
    assert (model.embed_dim, model.depth, model.num_heads, len(model.blocks)) == (48, 3, 4, 3)
    assert (model.grid, model.num_patches) == ((4, 4), 16)


def test_positions_and_they_only_are_frozen() -> None:
    model = create_encoder("tiny", 32, 8, depth=1)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["pos_embed"]


def test_embed_adds_positions_to_projected_patches() -> None:
    model = create_encoder("tiny", 32, 8, depth=1)
    images = torch.randn(2, 3, 32, 32)
    projected = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.embed(images), projected + sincos_positions(192, (4, 4))[:, 1:])


@pytest.mark.parametrize(("dim", "grid"), [(8, (2, 2)), (16, (3, 5)), (192, (14, 14))])
def test_sincos_positions_equal_scalar_arithmetic(dim: int, grid: tuple[int, int]) -> None:
    quarter = dim // 4
    table = [[0.0] * dim]
    for row in range(grid[0]):
        for column in range(grid[1]):
            entry = []
            for axis in (column, row):
                angles = [axis / math.pow(10000, i / quarter) for i in range(quarter)]
                entry += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            table.append(entry)
    torch.testing.assert_close(sincos_positions(dim, grid), torch.tensor([table]))


def test_sincos_positions_tell_patches_apart() -> None:
    table = sincos_positions(32, (14, 14), prefix_tokens=0)[0]
    assert torch.pdist(table).min() > 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "giant"}, ["giant", *SIZES]),
        ({"img_size": 225}, ["225", "16"]),
        ({"img_size": 32, "patch_size": 5}, ["32", "5"]),
        ({"patch_size": 0}, ["patch size 0"]),
        ({"num_heads": 5}, ["768", "5 heads"]),
        ({"embed_dim": 100}, ["100", "12 heads"]),
        ({"embed_dim": 6, "num_heads": 3}, ["6", "divisible by 4"]),
    ],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_impossible_models_are_one_line_errors(options: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        create_encoder(**{"depth": 1, **options})
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words)


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"embed_dim": 0}, {"num_heads": 0}, {"depth": -1}])
def test_an_override_of_zero_is_refused_and_not_replaced(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        create_encoder("tiny", 32, 4, **wrong)
