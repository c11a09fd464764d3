"""What the class token reads: torch's own attention, encoders without preference, class tokens that say nothing."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from mlomae.diagnostics.class_token import attention_of_class_token, error_without, lift, read_class_token
from mlomae.masking.sampling import central_patches
from mlomae.models import ViT
from mlomae.pretraining.pretrainer import Pretrainer

IMAGES = torch.randn(5, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def encoder() -> ViT:
    torch.manual_seed(0)
    return ViT(16, 4, 24, 2, 3).double().eval()


def test_attention_is_torchs() -> None:
    vit = encoder()
    found, x = attention_of_class_token(vit, IMAGES), vit.with_class_token(vit.embed(IMAGES))
    for block, share in zip(vit.blocks, found, strict=True):
        normed, qkv = block.norm1(x).transpose(0, 1), block.attn.qkv
        _, weight_BhNN = F.multi_head_attention_forward(
            *(normed,) * 3,
            *(24, 3, qkv.weight, qkv.bias, None, None, False, 0.0),
            *(block.attn.proj.weight, block.attn.proj.bias),
            average_attn_weights=False,
        )
        patches = weight_BhNN[:, :, 0, 1:]
        torch.testing.assert_close(share, (patches / patches.sum(dim=2, keepdim=True)).mean(dim=1))
        x = block(x)
    assert float((found[0] - found[1]).abs().max()) > 1e-3, "too blunt"


def test_an_encoder_without_preference_reads_by_area() -> None:
    vit = encoder()
    for block in vit.blocks:
        block.attn.qkv.weight.data[:48] = 0.0  # queries and keys
    for share in attention_of_class_token(vit, IMAGES):
        torch.testing.assert_close(share, torch.full_like(share, 1 / 16))
        assert lift(share, central_patches((4, 4), 0.25).expand_as(share)) == pytest.approx(1.0)


def test_lift() -> None:
    part = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    share = torch.tensor([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [1, 0, 0, 0]])
    assert lift(share, part) == pytest.approx((0.5 / 0.25 + 0.5 / 0.5) / 2), "images of one kind say nothing"
    assert lift(share, torch.ones(4, 4)) is None


def model() -> tuple[Pretrainer, dict]:
    net, data = tiny.trainer(tiny.config())
    return net.eval(), data.batches[0]["lower"][0]


def test_class_tokens_that_say_nothing_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = model()
    assert abs(error_without(net, batch)) > 1e-3, "too blunt"
    encoding = net.encode(batch)
    constant = encoding.latents_BKD.clone()
    constant[:, 0] = constant[0, 0]
    monkeypatch.setattr(net, "encode", lambda _: encoding._replace(latents_BKD=constant))
    assert error_without(net, batch) == pytest.approx(0.0, abs=1e-4)


def test_the_three_numbers() -> None:
    net, batch = model()
    found = read_class_token(net, batch, None)
    share = torch.stack(attention_of_class_token(net.mae.encoder, batch["image"])).mean(dim=0)
    objects = (share > share.mean(dim=1, keepdim=True)).float()
    more = read_class_token(net, batch, objects)
    assert found["objects"] is None
    assert more["objects"] == lift(share, objects) > 1.0
    assert (found["middle"], found["needed"]) == (more["middle"], more["needed"])
