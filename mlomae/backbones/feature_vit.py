"""A pretrained plain ViT as the backbone of dense heads: feature maps of chosen blocks, for images of any size.

One module for mmseg and mmdet: once this file is imported (``custom_imports``), a config of either takes
``dict(type="mlomae.FeatureViT", weights=..., out_indices=(3, 5, 7, 11))``.

With windows, as in detection with a plain ViT (Li et al., ViTDet, ECCV 2022), most blocks attend within windows of the
patch grid, some globally; tokens form a grid without class token. The attention is that of timm's ViTDet-style backbone
(vision_transformer_sam), with the weights of the plain ViT.

Shape legend: B images, C channels, H W pixels, p patch size, h w patch grid, L = h·w patches, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry
from timm.models.vision_transformer import Attention
from timm.models.vision_transformer_sam import Attention as GridAttention
from timm.models.vision_transformer_sam import window_partition, window_unpartition
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mlomae.backbones.config import FeatureBackboneConfig, values_of
from mlomae.backbones.create import create_backbone
from mlomae.common.errors import ConfigError

MODELS = Registry("model", parent=ROOT_MODELS, scope="mlomae")


class WindowAttention(GridAttention):
    """The same attention over a grid (B, h, w, D), with the same layers, within windows of ``window`` patches.

    Args:
        window: side of a window; 0 is attention over the whole grid. The grid is padded with zeros, after the norm, to
            whole windows.
        rel_pos: add relative positions that start at 0, separate for rows and columns, for a window or for ``grid``,
            the one at the ViT's own image size; they are interpolated to other grids.
    """

    def __init__(self, attention: nn.Module, window: int, grid: tuple[int, int], rel_pos: bool) -> None:
        if not isinstance(attention, Attention) or not isinstance(attention.q_norm, nn.Identity):
            raise ConfigError("windows need a ViT with timm's plain attention; leave window_size out for this backbone")
        dim, dropout = attention.proj.in_features, attention.attn_drop.p
        size = (window, window) if window else grid
        super().__init__(dim, attention.num_heads, attn_drop=dropout, use_rel_pos=rel_pos, input_size=size)
        self.qkv, self.proj, self.proj_drop = attention.qkv, attention.proj, attention.proj_drop
        self.window = window

    def forward(self, x: Tensor, **unused: Any) -> Tensor:
        if not self.window:
            return super().forward(x)
        parts, padded = window_partition(x, self.window)
        grid = (x.shape[1], x.shape[2])
        return window_unpartition(super().forward(parts), self.window, grid, padded)


@MODELS.register_module()
class FeatureViT(BaseModule):
    """Feature maps (B, D, ceil(H/p), ceil(W/p)) of the blocks ``out_indices``, without a norm after the last.

    Args:
        weights, model, seed: the backbone, as `create_backbone` takes it.
        img_size: pixels, a side or (height, width): the grid at which position embeddings are stored and trained.
            They are interpolated (bicubic, antialiased) for an image of another size. An image whose sides are no
            multiples of p is padded with zeros at the right and the bottom.
        out_indices: blocks, counted from 0, in ascending order. Later blocks and the final norm are dropped.
        drop_path: rate of the last block, rising linearly.
        window_size: side of an attention window in patches; 0 is global attention in all blocks. With windows there is
            no class token.
        global_blocks, rel_pos: the blocks without windows, and whether attention gets relative positions.
        with_cp: recompute the blocks' activations in the backward pass, which saves memory and costs time.

    ``report`` says what was loaded. Raises ConfigError for options that do not fit, CheckpointError for weights that
    do not.
    """

    def __init__(
        self,
        weights: str,
        img_size: int | Sequence[int] = 224,
        out_indices: Sequence[int] = (3, 5, 7, 11),
        drop_path: float = 0.0,
        model: dict[str, Any] | None = None,
        window_size: int = 0,
        global_blocks: Sequence[int] = (),
        rel_pos: bool = False,
        with_cp: bool = False,
        seed: int = 0,
        init_cfg: None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.vit, self.report = create_backbone(
            weights,
            num_classes=0,
            img_size=img_size if isinstance(img_size, int) else (img_size[0], img_size[1]),
            drop_path=drop_path,
            global_pool="token",
            model=model,
            keep_norm=True,
            dynamic_img_size=True,
            seed=seed,
        )
        depth = len(self.vit.blocks)
        self.out_indices = tuple(out_indices)
        inside = all(0 <= i < depth for i in self.out_indices)
        if not self.out_indices or not inside or sorted(set(self.out_indices)) != list(self.out_indices):
            raise ConfigError(f"out_indices {self.out_indices} must be rising block numbers from 0 to {depth - 1}")
        self.vit.blocks = self.vit.blocks[: self.out_indices[-1] + 1]
        self.vit.norm = nn.Identity()
        dropped, own, report = depth - len(self.vit.blocks), self.vit.state_dict(), self.report
        report.unexpected += [key for key in report.matched if key not in own]
        report.matched, report.missing = ([k for k in keys if k in own] for keys in (report.matched, report.missing))
        report.notes.append("norm: dropped" + (f"; the last {dropped} blocks too" if dropped else ""))
        self.with_cp = with_cp
        self.windowed = window_size != 0
        if self.windowed:
            self._use_windows(window_size, tuple(global_blocks), rel_pos)
            report.notes.append("cls_token: left out" + ("; relative positions start at 0" if rel_pos else ""))
        elif global_blocks or rel_pos:
            raise ConfigError("global_blocks and rel_pos go with a window_size; set it, or leave them out")

    def _use_windows(self, window_size: int, global_blocks: tuple[int, ...], rel_pos: bool) -> None:
        depth, (height, width) = len(self.vit.blocks), self.vit.patch_embed.grid_size
        if window_size > max(height, width):  # most of what attention sees would be padding
            raise ConfigError(
                f"window_size {window_size} is larger than the grid of {height}x{width} patches; lower it to at most "
                f"{max(height, width)}"
            )
        if window_size < 1 or not all(0 <= i < depth for i in global_blocks):
            raise ConfigError(
                f"window_size {window_size}, global_blocks {global_blocks}: the window must be positive and the blocks "
                f"inside 0..{depth - 1}"
            )
        block: Any
        for i, block in enumerate(self.vit.blocks):
            window = 0 if i in global_blocks else window_size
            block.attn = WindowAttention(block.attn, window, (height, width), rel_pos)

    @property
    def embed_dim(self) -> int:
        return int(self.vit.embed_dim)

    @property
    def patch_size(self) -> tuple[int, int]:
        height, width = self.vit.patch_embed.patch_size
        return int(height), int(width)

    def init_weights(self) -> None:
        """Do nothing: MMEngine calls this after building, when the weights are loaded already."""

    def embed(self, images_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Prefix and patch tokens with positions (B, 1 + L, D), and the patch grid (h, w)."""
        (p, q), (height, width) = self.patch_size, images_BCHW.shape[-2:]
        padded = F.pad(images_BCHW, (0, -width % q, 0, -height % p))
        patches_BDhw = self.vit.patch_embed.proj(padded)
        tokens_BhwD = self.vit.patch_embed.norm(patches_BDhw.permute(0, 2, 3, 1))
        grid = (patches_BDhw.shape[2], patches_BDhw.shape[3])
        return self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(tokens_BhwD))), grid

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """One map for each of ``out_indices``."""
        tokens, grid = self.embed(images_BCHW)
        if self.windowed:
            tokens = self._on_grid(tokens, grid)
        maps = []
        for i, block in enumerate(self.vit.blocks):
            again = self.with_cp and self.training
            tokens = checkpoint(block, tokens, use_reentrant=False) if again else block(tokens)
            if i in self.out_indices:
                map_BhwD = tokens if self.windowed else self._on_grid(tokens, grid)
                maps.append(map_BhwD.permute(0, 3, 1, 2).contiguous())
        return tuple(maps)

    def _on_grid(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, h, w, D), without the prefix tokens."""
        return tokens[:, self.vit.num_prefix_tokens :].unflatten(1, grid)


def build_feature_vit(section: FeatureBackboneConfig, seed: int) -> FeatureViT:
    """The backbone of a configuration; ConfigError if it names no weights."""
    weights = section.named_weights()
    with values_of("backbone.model"):
        return FeatureViT(**{**vars(section), "weights": weights, "img_size": section.height_width}, seed=seed)
