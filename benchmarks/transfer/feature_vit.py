"""A pretrained plain ViT as the backbone of dense heads: maps of chosen blocks, for images of any size.

One module for mmseg and mmdet: ``dict(type="mlomae.FeatureViT", weights=..., out_indices=(3, 5, 7, 11))`` in a config
of either, once this file is imported (``custom_imports``).

Shape legend: B images, C channels, H W pixels, p patch size, h w patch grid, L = h·w patches, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.transfer.backbone import create_backbone
from mlomae.errors import ConfigError

MODELS = Registry("model", parent=ROOT_MODELS, scope="mlomae")


@MODELS.register_module()
class FeatureViT(BaseModule):
    """Feature maps (B, D, ceil(H/p), ceil(W/p)) of the blocks ``out_indices``, without a norm after the last.

    Args:
        weights, model, seed: the backbone, as `create_backbone` takes it.
        img_size: pixels, a side or (height, width): the grid at which position embeddings are stored and trained.
            An image of another size gets them interpolated (bicubic, antialiased), and one whose sides are no
            multiples of p is padded with zeros at the right and the bottom.
        out_indices: blocks, counted from 0, rising. Those after the last one, and the final norm, are dropped.
        drop_path: rate of the last block, rising linearly.
        with_cp: recompute the blocks' activations in the backward pass, which saves memory and costs time.

    ``report`` is what was loaded. Raises ConfigError for options that do not fit, CheckpointError for weights that do
    not.
    """

    def __init__(
        self,
        weights: str,
        img_size: int | Sequence[int] = 224,
        out_indices: Sequence[int] = (3, 5, 7, 11),
        drop_path: float = 0.0,
        model: dict[str, Any] | None = None,
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
        left = depth - len(self.vit.blocks)
        self.report.notes.append("norm: dropped" + (f"; the last {left} blocks too" if left else ""))
        self.with_cp = with_cp

    @property
    def embed_dim(self) -> int:
        return int(self.vit.embed_dim)

    @property
    def patch_size(self) -> tuple[int, int]:
        height, width = self.vit.patch_embed.patch_size
        return int(height), int(width)

    def init_weights(self) -> None:
        """Nothing: MMEngine calls this after building, and the weights are there."""

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
        tokens_BLD, (h, w) = self.embed(images_BCHW)
        maps = []
        for i, block in enumerate(self.vit.blocks):
            again = self.with_cp and self.training
            tokens_BLD = checkpoint(block, tokens_BLD, use_reentrant=False) if again else block(tokens_BLD)
            if i in self.out_indices:
                patches_BLD = tokens_BLD[:, self.vit.num_prefix_tokens :]
                maps.append(patches_BLD.transpose(1, 2).unflatten(2, (h, w)).contiguous())
        return tuple(maps)
