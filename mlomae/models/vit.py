"""Plain ViT encoder: timm blocks, timm parameter names, fixed sin-cos positions.

Shape legend: B batch, C channels, H W pixels, L patches, K kept patches, D width, gh gw patch grid.
The state dict of `ViT` loads strictly into timm's ``VisionTransformer`` of the same size with ``num_classes=0``,
and the features agree (tests/models/test_vit.py). Architecture: Dosovitskiy et al. 2021; use in an MAE: He et al. 2022.
"""

from functools import partial
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.errors import ConfigError
from mlomae.common.registry import check_choice, check_range
from mlomae.models.attention import Attention

NORM_EPS = 1e-6  # of all layer norms, as in timm and facebookresearch/mae
# name -> (embed_dim, depth, num_heads), as in timm
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


def sincos_positions(dim: int, grid: tuple[int, int], prefix_tokens: int = 1) -> Tensor:
    """Fixed 2-D sin-cos position embedding, shape (1, prefix_tokens + gh*gw, dim); prefix tokens get zeros.

    A quarter of the channels each for sin and cos of the column and of the row index, with frequencies
    10000^(-i/(dim/4)) (MAE, section 3). Raises ConfigError if ``dim`` is not divisible by 4.
    """
    if dim % 4:
        raise ConfigError(f"width {dim} is not divisible by 4, which 2-D sin-cos positions need; choose another width")
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, cols = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in (cols, rows)]
    table = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1).float()
    return torch.cat([torch.zeros(prefix_tokens, dim), table]).unsqueeze(0)


def check_geometry(img_size: int, patch_size: int) -> tuple[int, int]:
    """The patch grid of a square image; raises ConfigError if the patch does not divide the image."""
    if img_size <= 0 or patch_size <= 0 or img_size % patch_size:
        raise ConfigError(
            f"image size {img_size} is not divisible by patch size {patch_size}; choose a patch size that divides it"
        )
    return img_size // patch_size, img_size // patch_size


def check_heads(owner: str, width: int, heads: int) -> None:
    """Raise ConfigError unless the number of ``heads`` divides the ``width`` of their transformer, ``owner``."""
    if heads < 1 or width % heads:
        raise ConfigError(f"{owner}: width {width} is not divisible by {heads} heads; change one of them")


def transformer(
    embed_dim: int, depth: int, num_heads: int, mlp_ratio: float, norm_eps: float = NORM_EPS
) -> tuple[nn.Sequential, nn.Module]:
    """Pre-norm blocks and the final norm, with timm's layers."""
    norm: Any = partial(nn.LayerNorm, eps=norm_eps)
    options: Any = {"mlp_ratio": mlp_ratio, "qkv_bias": True, "norm_layer": norm, "attn_layer": Attention}
    return nn.Sequential(*(Block(embed_dim, num_heads, **options) for _ in range(depth))), norm(embed_dim)


def rows(x_BND: Tensor, ids_BM: Tensor) -> Tensor:
    """``x_BND[b, ids_BM[b, m]]`` as (B, M, D), by copies of whole rows, which `torch.gather` does not make."""
    start_B1 = torch.arange(len(x_BND), device=x_BND.device).unsqueeze(1) * x_BND.shape[1]
    return x_BND.flatten(0, 1).index_select(0, (ids_BM + start_B1).flatten()).unflatten(0, ids_BM.shape)


def some_tokens(block: Any, x_BND: Tensor, part: slice) -> Tensor:
    """``block(x_BND)[:, part]`` without computing the others, M of them, for a block of `transformer`: (B, M, D).

    Keys and values come from all tokens; queries, projection and MLP are those of the part alone.
    """
    attention = block.attn
    normed_BND, dim = block.norm1(x_BND), x_BND.shape[2]
    q_weight, kv_weight = attention.qkv.weight.split([dim, 2 * dim])
    q_bias, kv_bias = attention.qkv.bias.split([dim, 2 * dim])
    q_BMD = F.linear(normed_BND[:, part].contiguous(), q_weight, q_bias)
    k, v = F.linear(normed_BND, kv_weight, kv_bias).unflatten(2, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q = q_BMD.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    heads = attention.attend(q, k, v).transpose(1, 2).flatten(2)
    x_BMD = x_BND[:, part] + attention.proj(heads)
    out: Tensor = x_BMD + block.mlp(block.norm2(x_BMD))
    return out


def init_weights(module: nn.Module) -> None:
    """Xavier-uniform linear layers with zero bias, the initialisation of MAE."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ViT(nn.Module):
    """Encoder of the masked autoencoder: embed all patches, encode any subset of them."""

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.grid = check_geometry(img_size, patch_size)
        self.img_size, self.patch_size = img_size, patch_size
        self.embed_dim, self.depth, self.num_heads, self.norm_eps = embed_dim, depth, num_heads, norm_eps
        self.num_patches = self.grid[0] * self.grid[1]
        self.patch_embed = PatchEmbed(img_size, patch_size, 3, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(sincos_positions(embed_dim, self.grid), requires_grad=False)
        self.blocks, self.norm = transformer(embed_dim, depth, num_heads, mlp_ratio, norm_eps)
        self.apply(init_weights)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(embed_dim, -1))
        nn.init.normal_(self.cls_token, std=0.02)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Patch tokens with their positions, without the class token: (B, L, D)."""
        return self.patch_embed(images_BCHW) + self.pos_embed[:, 1:]

    def embed_patches(self, patches_BKP: Tensor, ids_BK: Tensor | None = None, constant: bool = False) -> Tensor:
        """`embed` from pixels as `patchify` orders them: of the patches ``ids_BK`` alone, (B, K, D), or of all L.

        ``constant``: without derivatives by the weights, in reverse and in forward mode.
        """
        proj: Any = self.patch_embed.proj
        weight, bias = proj.weight, proj.bias
        if constant:
            weight, bias = weight.detach(), bias.detach()
        position_LD = self.pos_embed[0, 1:]
        tokens_BKD = F.linear(patches_BKP, weight.permute(0, 2, 3, 1).flatten(1), bias)
        return tokens_BKD + (position_LD if ids_BK is None else F.embedding(ids_BK, position_LD))

    def with_class_token(self, tokens_BKD: Tensor) -> Tensor:
        """Input of the first block, (B, 1 + K, D)."""
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(tokens_BKD.shape[0], -1, -1)
        return torch.cat([cls, tokens_BKD], dim=1)

    def encode(self, tokens_BKD: Tensor) -> Tensor:
        """Class token and the given patch tokens through all blocks and the final norm: (B, 1 + K, D)."""
        return self.norm(self.blocks(self.with_class_token(tokens_BKD)))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Features of the whole image, nothing masked: (B, 1 + L, D), equal to timm's ``forward_features``."""
        return self.encode(self.embed(images_BCHW))

    def class_token(self, images_BCHW: Tensor) -> Tensor:
        """``forward(images_BCHW)[:, :1]``, (B, 1, D), up to rounding: the last block computes no other token."""
        x_BND = self.blocks[:-1](self.with_class_token(self.embed(images_BCHW)))
        return self.norm(some_tokens(self.blocks[-1], x_BND, slice(0, 1)))


def create_encoder(
    size: str = "base",
    img_size: int = 224,
    patch_size: int = 16,
    embed_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    norm_eps: float = NORM_EPS,
) -> ViT:
    """A `ViT` by size name (tiny, small, base, large, huge); ``embed_dim``, ``depth``, ``num_heads`` override it."""
    check_choice("model", SIZES, size=size)
    given = zip(SIZES[size], (embed_dim, depth, num_heads), strict=True)
    dim, layers, heads = (usual if value is None else value for usual, value in given)
    check_range("model", "[1, inf)", embed_dim=dim, depth=layers, num_heads=heads)
    check_heads("model", dim, heads)
    return ViT(img_size, patch_size, dim, layers, heads, norm_eps=norm_eps)
