"""The attention of our blocks: timm's numbers, and torch's fused kernel wherever it is not the slow one."""

import copy

import pytest
import torch
from timm import layers
from timm.models.vision_transformer import Block
from torch.nn import functional as F

from mlomae.common.precision import twice_differentiable
from mlomae.models import ViT
from mlomae.models.attention import Attention
from mlomae.models.vit import some_tokens, transformer


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of every call of torch's fused attention."""
    calls: list[int] = []
    kernel = F.scaled_dot_product_attention

    def spy(query, *args, **kwargs):
        calls.append(query.shape[-2])
        return kernel(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return calls


def pair() -> tuple[Attention, layers.Attention, torch.Tensor]:
    torch.manual_seed(0)
    ours = Attention(32, num_heads=4, qkv_bias=True)
    theirs = layers.Attention(32, num_heads=4, qkv_bias=True)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(3, 10, 32)


def test_it_is_timms_bit_for_bit(fused_calls: list[int]) -> None:
    ours, theirs, x = pair()
    assert torch.equal(ours(x), theirs(x))
    theirs.fused_attn = ours.fused_attn = False
    assert torch.equal(ours(x), theirs(x))
    assert fused_calls == [10, 10], "switched off by hand"


def test_in_bfloat16_a_processor_takes_two_products(fused_calls: list[int]) -> None:
    ours, _, x = pair()
    full = ours(x)
    fused_calls.clear()
    with torch.autocast("cpu", torch.bfloat16):
        half = ours(x)
    assert not fused_calls
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), full, atol=0.02)
    with torch.autocast("cpu", torch.float16):
        ours(x)
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        ours(x)
    assert fused_calls == [10, 10], "other precisions, and no autocast, have fast fused kernels"


def test_what_is_differentiated_twice_takes_two_products(fused_calls: list[int]) -> None:
    ours, _, x = pair()
    with twice_differentiable():
        twice = ours(x)
    assert not fused_calls
    assert torch.allclose(twice, ours(x), atol=1e-6)
    assert fused_calls == [10], "and it ends with the context"


@pytest.mark.parametrize("half", [False, True])
def test_gradients_of_both_kernels_agree(half: bool) -> None:
    ours, _, x = pair()
    found = []
    for fused in (True, False):
        ours.fused_attn = fused
        ours.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            ours(x).float().square().sum().backward()
        found.append(ours.qkv.weight.grad.clone())
    assert torch.allclose(*found, rtol=0.05 if half else 1e-4, atol=0.05 if half else 1e-5)


def test_a_part_of_the_tokens_is_that_part_in_bfloat16(fused_calls: list[int]) -> None:
    torch.manual_seed(0)
    blocks, _ = transformer(32, 1, 4, 2.0)
    x = torch.randn(3, 10, 32)
    for amp in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            expected, found = blocks[0](x)[:, 2:5], some_tokens(blocks[0], x, slice(2, 5))
        assert torch.allclose(found.float(), expected.float(), atol=0.03 if amp else 1e-6)
    assert fused_calls == [10, 3]


def test_all_our_blocks_have_it_and_weights_are_timms() -> None:
    vit = ViT(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2)
    assert {type(module) for module in vit.modules() if isinstance(module, layers.Attention)} == {Attention}
    plain = Block(16, 2, 4.0, qkv_bias=True)
    assert vit.blocks[0].state_dict().keys() == plain.state_dict().keys()
    assert isinstance(copy.deepcopy(vit).blocks[0].attn, Attention)
