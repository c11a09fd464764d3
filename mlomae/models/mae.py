"""The masked autoencoder: a mask, an encoder of the kept patches, a light decoder, the reconstruction error per patch.

Convention: mask 1 = removed, 0 = kept; K = ⌊(1 - ratio) L⌋.

Shape legend: B batch, C channels, H W pixels, L patches, K kept patches, R = L - K others, D encoder width, P values in
a patch (patch_size² * 3). Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.errors import ConfigError
from mlomae.models.vit import ViT, check_heads, init_weights, rows, sincos_positions, some_tokens, transformer


@dataclass(frozen=True)
class Mask:
    """A mask and the weight of each patch's reconstruction error in stage I.

    ``ids_keep`` (B, K) kept patches; ``ids_restore`` (B, L) inverse of the order "kept first, then removed";
    ``mask`` (B, L) 1 removed, 0 kept; ``weight`` (B, L) factor of the loss (σ for the learned mask, else ones);
    ``gate`` (B, L) or None: factor of the tokens, 1 in value, through which the reconstruction error can be
    differentiated with respect to the scores that chose the patches; ``choice`` (B, ...) or None: the scores by which
    an adaptive strategy chose, with their graph, for its own loss.
    """

    ids_keep: Tensor
    ids_restore: Tensor
    mask: Tensor
    weight: Tensor
    gate: Tensor | None = None
    choice: Tensor | None = None

    @property
    def ids_removed(self) -> Tensor:
        """(B, R) the patches that are not encoded, in the order of ``ids_restore``: those that ``mask`` removes, and
        those that it neither keeps nor counts, if the strategy throws some away."""
        order_BL = torch.arange(self.ids_restore.shape[1], device=self.ids_restore.device).expand_as(self.ids_restore)
        ids_shuffle_BL = torch.zeros_like(self.ids_restore).scatter(1, self.ids_restore, order_BL)
        return ids_shuffle_BL[:, self.ids_keep.shape[1] :]

    def of_removed(self, values_BL: Tensor) -> Tensor:
        """The values of the patches ``ids_removed``, (B, R)."""
        return values_BL.gather(1, self.ids_removed)


def keep_count(length: int, ratio: float) -> int:
    """⌊(1 - ratio) L⌋, at least one kept and one removed; raises ConfigError for a ratio that leaves neither.

    The product is nudged by a millionth of a patch so that 0.1 * 10, which binary fractions put just below 1, counts
    as 1.
    """
    if not 0.0 < ratio < 1.0:
        raise ConfigError(f"mask ratio {ratio} is outside (0, 1); 0.75 is MAE's default")
    kept = int(length * (1.0 - ratio) + 1e-6)
    if not 0 < kept < length:
        raise ConfigError(
            f"mask ratio {ratio} keeps {kept} of {length} patches; choose one that keeps some and removes some"
        )
    return kept


def mask_from_scores(scores_BL: Tensor, ratio: float, weight_BL: Tensor | None = None) -> Mask:
    """Remove the patches with the highest scores; ties are broken by position, which keeps the choice deterministic.

    The weights default to ones.
    """
    kept = keep_count(scores_BL.shape[1], ratio)
    ids_shuffle = torch.argsort(scores_BL.detach(), dim=1, stable=True)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    dtype = torch.float32 if weight_BL is None else weight_BL.dtype
    mask = (ids_restore >= kept).to(dtype)
    return Mask(ids_shuffle[:, :kept], ids_restore, mask, torch.ones_like(mask) if weight_BL is None else weight_BL)


def patchify(images_BCHW: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches: (B, C, H, W) -> (B, L, P), values of a patch ordered row, column, channel."""
    b, c, h, w = images_BCHW.shape
    p = patch_size
    x = images_BCHW.reshape(b, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // p) * (w // p), p * p * c)


def unpatchify(patches_BLP: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of `patchify`: (B, L, P) -> (B, C, H, W)."""
    b, p = patches_BLP.shape[0], patch_size
    x = patches_BLP.reshape(b, *grid, p, p, -1).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(b, -1, grid[0] * p, grid[1] * p)


def normalise_patches(patches_BLP: Tensor) -> Tensor:
    """Subtract each patch's mean and divide by its standard deviation (``norm_pix_loss`` of MAE)."""
    mean = patches_BLP.mean(dim=-1, keepdim=True)
    var = patches_BLP.var(dim=-1, keepdim=True)
    return (patches_BLP - mean) / (var + 1e-6).sqrt()


class Decoder(nn.Module):
    """Transformer that sees latents at the kept positions and one shared mask token elsewhere."""

    def __init__(self, encoder: ViT, embed_dim: int, depth: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        check_heads("decoder", embed_dim, num_heads)
        self.embed = nn.Linear(encoder.embed_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(sincos_positions(embed_dim, encoder.grid), requires_grad=False)
        self.blocks, self.norm = transformer(embed_dim, depth, num_heads, mlp_ratio, encoder.norm_eps)
        self.pred = nn.Linear(embed_dim, encoder.patch_size**2 * 3)
        self.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latents_BKD: Tensor, ids_restore_BL: Tensor) -> Tensor:
        """Predicted pixels of every patch, (B, L, P), from (B, 1 + K, D) latents, class token first."""
        x = self.embed(latents_BKD)
        b, kept, dim = x.shape[0], x.shape[1] - 1, x.shape[2]
        missing = ids_restore_BL.shape[1] - kept
        shuffled = torch.cat([x[:, 1:], self.mask_token.to(x.dtype).expand(b, missing, -1)], dim=1)
        patches = torch.gather(shuffled, 1, ids_restore_BL.unsqueeze(-1).expand(-1, -1, dim))
        x = torch.cat([x[:, :1], patches], dim=1) + self.pos_embed
        return self.pred(self.norm(self.blocks(x))[:, 1:])

    def predict_removed(self, latents_BKD: Tensor, mask: Mask) -> Tensor:
        """Predicted pixels of the patches ``mask.ids_removed`` alone, (B, R, P): the rows of `forward`, up to rounding.

        The order of tokens does not matter to attention: the kept come first here, and nothing is put in place. The
        last block makes no output, and the layers after it no prediction, that a loss on removed patches ignores.
        """
        x, ids_removed_BR = self.embed(latents_BKD), mask.ids_removed
        b, missing = ids_removed_BR.shape
        first_B1 = ids_removed_BR.new_zeros(b, 1)  # the class token's position
        places = torch.cat([first_B1, 1 + mask.ids_keep, 1 + ids_removed_BR], dim=1)
        tokens = torch.cat([x, self.mask_token.to(x.dtype).expand(b, missing, -1)], dim=1)
        x = self.blocks[:-1](tokens + F.embedding(places, self.pos_embed[0]))
        return self.pred(self.norm(some_tokens(self.blocks[-1], x, slice(-missing, None))))


class MAE(nn.Module):
    """Encoder E and decoder D: reconstructs images under a given mask, which a masking strategy chooses."""

    def __init__(
        self,
        encoder: ViT,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        norm_pix_loss: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder, decoder_embed_dim, decoder_depth, decoder_num_heads)
        self.norm_pix_loss = norm_pix_loss

    def encode_kept(self, tokens_BLD: Tensor, mask: Mask) -> Tensor:
        """Latents (B, 1 + K, D) of the class token and the kept patches."""
        if mask.gate is not None:
            tokens_BLD = tokens_BLD * mask.gate.unsqueeze(-1).to(tokens_BLD.dtype)
        index = mask.ids_keep.unsqueeze(-1).expand(-1, -1, tokens_BLD.shape[-1])
        return self.encoder.encode(torch.gather(tokens_BLD, 1, index))

    def encode_patches(self, patches_BLP: Tensor, mask: Mask) -> Tensor:
        """`encode_kept` of the tokens that `embed` would make of the pixels; the other patches are not embedded."""
        tokens_BKD = self.encoder.embed_patches(rows(patches_BLP, mask.ids_keep), mask.ids_keep)
        if mask.gate is not None:
            tokens_BKD = tokens_BKD * mask.gate.gather(1, mask.ids_keep).unsqueeze(-1).to(tokens_BKD.dtype)
        return self.encoder.encode(tokens_BKD)

    def forward(self, tokens_BLD: Tensor, mask: Mask) -> Tensor:
        """Predicted patches (B, L, P) from the embedded tokens and a mask."""
        return self.decoder(self.encode_kept(tokens_BLD, mask), mask.ids_restore)

    def target(self, images_BCHW: Tensor) -> Tensor:
        """The decoder's regression target: (B, L, P) pixels, normalised per patch if ``norm_pix_loss``."""
        return self._target(patchify(images_BCHW, self.encoder.patch_size))

    def _target(self, patches_BLP: Tensor) -> Tensor:
        return normalise_patches(patches_BLP) if self.norm_pix_loss else patches_BLP

    def patch_error(self, pred_BLP: Tensor, images_BCHW: Tensor) -> Tensor:
        """``rec`` of the method: mean squared error of every patch, (B, L), float32 even under autocast."""
        return self.error_of(pred_BLP, patchify(images_BCHW, self.encoder.patch_size))

    def error_of(self, pred_BLP: Tensor, patches_BLP: Tensor) -> Tensor:
        """`patch_error` of some patches or all, from their pixels."""
        dtype = torch.promote_types(pred_BLP.dtype, torch.float32)
        return (pred_BLP.to(dtype) - self._target(patches_BLP.to(dtype))).square().mean(dim=-1)

    def removed_error(self, latents_BKD: Tensor, patches_BLP: Tensor, mask: Mask) -> Tensor:
        """``rec`` of the patches ``mask.ids_removed``, (B, R), from the latents of the others and all pixels."""
        pred_BRP = self.decoder.predict_removed(latents_BKD, mask)
        return self.error_of(pred_BRP, rows(patches_BLP, mask.ids_removed))
