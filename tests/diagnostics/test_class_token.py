"""What the class token reads: torch's own attention, encoders without preference, class tokens that say nothing."""

import pytest
import tiny
import torch
from torch.nn import functional as F

from mlomae.diagnostics.class_token import error_without, knn_of_parts, lift, read_class_token, read_image, read_parts
from mlomae.masking.sampling import central_patches
from mlomae.models import ViT
from mlomae.pretraining.pretrainer import Pretrainer

IMAGES = torch.randn(5, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def encoder() -> ViT:
    torch.manual_seed(0)
    return ViT(16, 4, 24, 2, 3).double().eval()


def test_attention_is_torchs() -> None:
    vit = encoder()
    (token, found), x = read_image(vit, IMAGES), vit.with_class_token(vit.embed(IMAGES))
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
    torch.testing.assert_close(token, vit(IMAGES)[:, 0])
    assert float((found[0] - found[1]).abs().max()) > 1e-3, "too blunt"


def test_a_class_token_reads_what_it_may() -> None:
    """Of one layer, other pixels elsewhere change nothing; of more, patches hand them on."""
    seen = torch.zeros(5, 16, dtype=torch.bool)
    seen[:, [0, 1, 4]] = True  # the pixels of the left upper corner, and four rows below it
    other = IMAGES.clone()
    other[:, :, 8:] += 1.0
    for depth, same in ((1, True), (2, False)):
        torch.manual_seed(0)
        vit = ViT(16, 4, 24, depth, 3).double().eval()
        tokens = [read_image(vit, images, seen)[0] for images in (IMAGES, other)]
        assert (float((tokens[0] - tokens[1]).abs().max()) < 1e-12) == same
        assert float((read_image(vit, IMAGES)[0] - tokens[0]).abs().max()) > 1e-3, "too blunt"
        everything = read_image(vit, IMAGES, torch.ones_like(seen))
        torch.testing.assert_close(everything[0], read_image(vit, IMAGES)[0], rtol=0, atol=0)
        nothing = read_image(vit, IMAGES, torch.zeros_like(seen))[0]
        assert bool(nothing.isfinite().all())


def test_a_part_is_read_where_the_classes_are() -> None:
    """Labels are the brightness of the middle: a class token that reads it knows them, one of the border does not."""
    vit = encoder()
    vit.blocks = vit.blocks[:1]
    generator = torch.Generator().manual_seed(1)
    label = torch.arange(40) % 2
    image = torch.randn(40, 3, 16, 16, generator=generator).double()
    image[:, :, 4:12, 4:12] += 4.0 * label[:, None, None, None]
    batch = {"image": image, "object": torch.zeros(40, 16, 16, dtype=torch.bool)}
    batch["object"][:, 4:12, 4:12] = True
    half = {name: (value[:20], value[20:]) for name, value in batch.items()}
    head, upper = ((read_parts(vit, {k: v[i] for k, v in half.items()}), label[:20]) for i in (0, 1))
    found = knn_of_parts([head], [upper])
    assert list(found) == ["all", "middle", "border", "objects"]
    assert found["middle"] == found["objects"] == [100.0]
    assert found["border"][0] < 80.0
    assert knn_of_parts([(head[0], torch.zeros(20))], [upper]) == {}, "one class"


def test_an_encoder_without_preference_reads_by_area() -> None:
    vit = encoder()
    for block in vit.blocks:
        block.attn.qkv.weight.data[:48] = 0.0  # queries and keys
    for share in read_image(vit, IMAGES)[1]:
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
    share = torch.stack(read_image(net.mae.encoder, batch["image"])[1]).mean(dim=0)
    objects = (share > share.mean(dim=1, keepdim=True)).float()
    more = read_class_token(net, batch, objects)
    assert found["objects"] is None
    assert more["objects"] == lift(share, objects) > 1.0
    assert (found["middle"], found["needed"]) == (more["middle"], more["needed"])
