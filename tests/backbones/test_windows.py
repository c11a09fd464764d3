"""Attention in windows, against attention with a mask over the whole grid, and against no windows at all."""

import pytest
import torch
from torch import Tensor

from mlomae.backbones.feature_vit import FeatureViT
from mlomae.common.errors import ConfigError

MODEL = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 4}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(**options: object) -> FeatureViT:
    return FeatureViT("random", img_size=32, out_indices=(1, 2), model=MODEL, **options).eval()  # type: ignore[arg-type]


def by_mask(model: FeatureViT, window: int, globals_: tuple[int, ...]) -> list[Tensor]:
    """The same blocks on the flat tokens, where a token may see those of its window alone."""
    tokens, (h, w) = model.embed(IMAGES)
    tokens = tokens[:, 1:]
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    of = (rows // window * w + columns // window).flatten()
    seen = torch.where(of[:, None] == of[None], 0.0, float("-inf"))
    maps = []
    for i, block in enumerate(model.vit.blocks):
        a, normed = block.attn, block.norm1(tokens)
        q, k, v = a.qkv(normed).unflatten(2, (3, a.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + (0.0 if i in globals_ else seen)
        attended = a.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        tokens = tokens + attended
        tokens = tokens + block.mlp(block.norm2(tokens))
        maps.append(tokens.transpose(1, 2).unflatten(2, (h, w)))
    return [maps[i] for i in model.out_indices]


@pytest.mark.parametrize(("window", "globals_"), [(4, (1,)), (2, (0, 2)), (8, ()), (4, ())])
def test_windows_are_a_mask_over_the_grid(window: int, globals_: tuple[int, ...]) -> None:
    model = vit(window_size=window, global_blocks=globals_)
    with torch.no_grad():
        for ours, theirs in zip(model(IMAGES), by_mask(model, window, globals_), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        other = by_mask(model, window, (0, 1, 2))  # the mutation: no windows
    if window < 8:
        assert (model(IMAGES)[-1] - other[-1]).abs().max() > 1e-2


def test_relative_positions_start_without_effect_and_are_trained() -> None:
    plain, relative = (vit(window_size=4, global_blocks=(2,), rel_pos=on) for on in (False, True))
    torch.testing.assert_close(relative(IMAGES), plain(IMAGES), rtol=1e-5, atol=1e-5)
    relative(IMAGES)[-1].square().sum().backward()
    tables = {name: p for name, p in relative.named_parameters() if "rel_pos" in name}
    assert sorted(tables) == [f"vit.blocks.{i}.attn.rel_pos_{axis}" for i in range(3) for axis in "hw"]
    assert [tuple(tables[f"vit.blocks.{i}.attn.rel_pos_h"].shape) for i in (0, 2)] == [(7, 16), (15, 16)]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tables.values())


def test_grids_that_are_no_multiple_of_the_window_are_padded_and_cut_again() -> None:
    maps = vit(window_size=3, global_blocks=(1,), rel_pos=True)(torch.randn(1, 3, 40, 28))
    assert [tuple(m.shape) for m in maps] == [(1, 32, 10, 7), (1, 32, 10, 7)]


def test_recomputed_activations_give_the_same_gradients() -> None:
    grads = []
    for again in (False, True):
        model = vit(window_size=4, with_cp=again).train()
        model(IMAGES)[-1].square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window_size": -1}, "window must be positive"),
        ({"window_size": 9}, "larger than the grid of 8x8 patches; lower it to at most 8"),
        ({"window_size": 4, "global_blocks": (3,)}, "blocks inside 0..2"),
        ({"global_blocks": (1,)}, "go with a window_size"),
        ({"rel_pos": True}, "go with a window_size"),
    ],
)
def test_wrong_windows_are_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        vit(**options)
    assert "\n" not in str(error.value)
