"""Windowed attention for large images, as in detection with a plain ViT (Li et al., ViTDet, ECCV 2022).

Most blocks attend within windows of the patch grid, some globally; tokens form a grid without class token. The
attention is that of timm's ViTDet-style backbone (vision_transformer_sam), with the weights of the plain ViT.

Shape legend: B images, h w patch grid, D width.
"""

from collections.abc import Sequence
from typing import Any

from timm.models.vision_transformer import Attention, Block, VisionTransformer
from timm.models.vision_transformer_sam import Attention as GridAttention
from timm.models.vision_transformer_sam import window_partition, window_unpartition
from torch import Tensor, nn

from mlomae.common.errors import ConfigError


def _on_grid(attention: nn.Module, size: tuple[int, int], rel_pos: bool) -> GridAttention:
    """The same attention over a grid of ``size``, with the same layers; ``rel_pos`` adds positions that start at 0."""
    if type(attention) is not Attention or not isinstance(attention.q_norm, nn.Identity):
        raise ConfigError("windows need a ViT with timm's plain attention; leave window_size out for this backbone")
    dim, dropout = attention.proj.in_features, attention.attn_drop.p
    grid = GridAttention(dim, attention.num_heads, attn_drop=dropout, use_rel_pos=rel_pos, input_size=size)
    grid.qkv, grid.proj, grid.proj_drop = attention.qkv, attention.proj, attention.proj_drop
    return grid


class WindowedBlocks:
    """Runs the blocks of ``vit`` over a grid: in windows of ``window_size`` patches, except ``global_blocks``.

    The grid is padded with zeros, after the norm, to whole windows. With ``rel_pos`` every attention gets relative
    positions, separate for rows and columns, for its window or for the whole grid at the ViT's own image size; they are
    interpolated to other grids. Changes ``vit.blocks`` in place.

    Raises ConfigError for a window or blocks out of range.
    """

    def __init__(self, vit: VisionTransformer, window_size: int, global_blocks: Sequence[int], rel_pos: bool) -> None:
        depth = len(vit.blocks)
        if window_size < 1 or not all(0 <= i < depth for i in global_blocks):
            given = f"window_size {window_size}, global_blocks {tuple(global_blocks)}"
            raise ConfigError(f"{given}: the window must be positive and the blocks inside 0..{depth - 1}")
        rows, columns = vit.patch_embed.grid_size
        self.windows = [0 if i in global_blocks else window_size for i in range(depth)]
        for block, window in zip(vit.blocks, self.windows, strict=True):
            assert isinstance(block, Block)
            size = (window, window) if window else (rows, columns)
            block.attn = _on_grid(block.attn, size, rel_pos)

    def run(self, block: Any, i: int, tokens_BhwD: Tensor) -> Tensor:
        """Block ``i`` of a pre-norm transformer, its attention in windows or global: (B, h, w, D)."""
        tokens_BhwD = tokens_BhwD + block.drop_path1(block.ls1(self._attend(block, i, tokens_BhwD)))
        return tokens_BhwD + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens_BhwD))))

    def _attend(self, block: Any, i: int, tokens_BhwD: Tensor) -> Tensor:
        normed_BhwD, window = block.norm1(tokens_BhwD), self.windows[i]
        if not window:
            attended: Tensor = block.attn(normed_BhwD)
            return attended
        grid = (normed_BhwD.shape[1], normed_BhwD.shape[2])
        parts, padded = window_partition(normed_BhwD, window)
        return window_unpartition(block.attn(parts), window, grid, padded)
