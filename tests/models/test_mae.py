"""The masked autoencoder: patches, targets, errors, and what the mask hides."""

import pytest
import torch
from torch import Tensor

from mlomae.common.errors import ConfigError
from mlomae.masking.base import Mask, mask_from_scores
from mlomae.models import MAE, create_encoder
from mlomae.models.mae import normalise_patches, patchify, unpatchify

L = 16


@pytest.fixture
def mae() -> MAE:
    """A float64 autoencoder on 16 patches of 4 pixels, biases and norms away from their initial values."""
    torch.manual_seed(0)
    encoder = create_encoder("tiny", 16, 4, embed_dim=16, depth=2, num_heads=2)
    model = MAE(encoder, decoder_embed_dim=24, decoder_depth=2, decoder_num_heads=3).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> Mask:
    return mask_from_scores(torch.rand(3, L, generator=torch.Generator().manual_seed(2)), 0.75)


def per_pixel(mask_BL: Tensor) -> Tensor:
    """(B, L) patches -> (B, 3, 16, 16) pixels."""
    return unpatchify(mask_BL.double().unsqueeze(-1).expand(-1, -1, 48), 4, (4, 4))


def latents(model: MAE, images: Tensor, ids_keep: Tensor) -> Tensor:
    tokens = model.encoder.embed(images)
    return model.encoder.encode(torch.gather(tokens, 1, ids_keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])))


@pytest.mark.parametrize(("h", "w", "p"), [(16, 16, 4), (8, 12, 2), (6, 6, 6)])
def test_unpatchify_inverts_patchify(h: int, w: int, p: int) -> None:
    images = torch.randn(2, 3, h, w)
    patches = patchify(images, p)
    assert patches.shape == (2, h * w // p**2, 3 * p**2)
    assert torch.equal(unpatchify(patches, p, (h // p, w // p)), images)


def test_patchify_orders_patches_by_row_and_values_by_row_column_channel() -> None:
    images = torch.randn(1, 3, 4, 6)
    patch = patchify(images, 2)[0, 4]  # second row of patches, second column
    expected = [images[0, c, 2 + i, 2 + j] for i in range(2) for j in range(2) for c in range(3)]
    assert torch.equal(patch, torch.stack(expected))


def test_patches_and_tokens_share_their_order(mae: MAE, images: Tensor) -> None:
    changed = images + per_pixel(torch.eye(L)[5].expand(3, L))
    moved = (mae.encoder.embed(changed) != mae.encoder.embed(images)).any(dim=-1)
    assert moved.nonzero()[:, 1].tolist() == [5, 5, 5]


def test_normalised_patches_have_zero_mean_and_unit_variance() -> None:
    patches = normalise_patches(5 + 3 * torch.randn(2, 7, 48, dtype=torch.float64))
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 7, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(patches.var(-1), torch.ones(2, 7, dtype=torch.float64), atol=1e-5, rtol=0)


def test_a_constant_patch_normalises_to_zero() -> None:
    assert torch.equal(normalise_patches(torch.full((1, 1, 48), 0.5)), torch.zeros(1, 1, 48))


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_patch_error_is_the_mean_square_of_each_patch(mae: MAE, images: Tensor, norm_pix_loss: bool) -> None:
    mae.norm_pix_loss = norm_pix_loss
    offset = torch.arange(L, dtype=torch.float64).view(1, L, 1)
    error = mae.patch_error(mae.target(images) + offset, images)
    torch.testing.assert_close(error, offset[..., 0].square().expand(3, L))


def test_patch_error_of_zero_against_normalised_pixels(mae: MAE, images: Tensor) -> None:
    error = mae.patch_error(torch.zeros(3, L, 48, dtype=torch.float64), images)
    torch.testing.assert_close(error, torch.full_like(error, 47 / 48), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_patch_error_is_float32_for_narrow_predictions(mae: MAE, dtype: torch.dtype) -> None:
    images = torch.randn(2, 3, 16, 16)
    pred = torch.randn(2, L, 48).to(dtype)
    error = mae.patch_error(pred, images)
    assert error.dtype == torch.float32
    assert torch.equal(error, mae.patch_error(pred.float(), images))


def test_kept_latents_do_not_depend_on_removed_pixels(mae: MAE, images: Tensor, mask: Mask) -> None:
    noise = torch.randn_like(images) * per_pixel(mask.mask)
    assert noise.any()
    assert torch.equal(latents(mae, images, mask.ids_keep), latents(mae, images + noise, mask.ids_keep))
    tokens = [mae.encoder.embed(x) for x in (images, images + noise)]
    assert torch.equal(mae(tokens[0], mask), mae(tokens[1], mask))


def test_every_kept_patch_reaches_every_prediction(mae: MAE, images: Tensor, mask: Mask) -> None:
    tokens = mae.encoder.embed(images).detach().requires_grad_()
    for prediction in range(0, L, 5):
        (gradient,) = torch.autograd.grad(mae(tokens, mask)[:, prediction].square().sum(), tokens)
        assert torch.equal(gradient.abs().sum(-1) > 0, mask.mask == 0)


def test_prediction_does_not_depend_on_the_order_of_kept_patches(mae: MAE, images: Tensor, mask: Mask) -> None:
    kept = mask.ids_keep.shape[1]
    order = torch.stack([torch.randperm(kept, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    assert (order != torch.arange(kept)).any(dim=1).all()
    ids_shuffle = torch.argsort(mask.ids_restore, dim=1)
    ids_shuffle[:, :kept] = torch.gather(mask.ids_keep, 1, order)
    other = Mask(ids_shuffle[:, :kept], torch.argsort(ids_shuffle, dim=1), mask.mask, mask.weight)
    tokens = mae.encoder.embed(images)
    torch.testing.assert_close(mae(tokens, other), mae(tokens, mask))


def test_decoder_puts_latents_at_kept_positions_and_the_mask_token_elsewhere(
    mae: MAE, images: Tensor, mask: Mask
) -> None:
    decoder = mae.decoder
    decoder.blocks, decoder.norm, decoder.pred = (torch.nn.Identity() for _ in range(3))
    z = latents(mae, images, mask.ids_keep)
    out = decoder(z, mask.ids_restore)
    embedded = decoder.embed(z)
    for b in range(3):
        for patch in range(L):
            place = (mask.ids_keep[b] == patch).nonzero().flatten()
            content = embedded[b, 1 + place[0]] if len(place) else decoder.mask_token[0, 0]
            torch.testing.assert_close(out[b, patch], content + decoder.pos_embed[0, 1 + patch])


def test_keeping_everything_in_order_is_the_full_encoder(mae: MAE, images: Tensor) -> None:
    torch.testing.assert_close(latents(mae, images, torch.arange(L).expand(3, L)), mae.encoder(images))


def test_only_positions_are_frozen(mae: MAE) -> None:
    frozen = [n for n, p in mae.named_parameters() if not p.requires_grad]
    assert frozen == ["encoder.pos_embed", "decoder.pos_embed"]


def test_decoder_predicts_every_pixel(mae: MAE, images: Tensor, mask: Mask) -> None:
    assert mae(mae.encoder.embed(images), mask).shape == (3, L, 48)


@pytest.mark.parametrize(("width", "heads"), [(24, 5), (18, 3)])
def test_impossible_decoders_are_one_line_errors(width: int, heads: int) -> None:
    encoder = create_encoder("tiny", 16, 4, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(ConfigError, match=rf"{width}.*divisible") as error:
        MAE(encoder, decoder_embed_dim=width, decoder_depth=1, decoder_num_heads=heads)
    assert "\n" not in str(error.value)
