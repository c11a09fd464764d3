"""Other plain masked autoencoders, to compare the speed of a step: lightly's, and the reference design.

Shape legend: B batch, L patches, K kept patches, D width, P values in a patch. Both take the sizes of a `Setting`, the
loss of ours (per-patch normalised pixels) and the same fused AdamW, so that only the model's code differs.
"""

import warnings
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from benchmarks.cost.speed.setting import RATIO, Setting
from mlomae.common.errors import ConfigError
from mlomae.models.mae import normalise_patches, patchify
from mlomae.models.vit import sincos_positions


class ReferenceDesign(nn.Module):
    """The design that MAE was published with, in our own words (He et al., CVPR 2022): attention as two products and a
    softmax, masks from the argsort of noise, mask tokens appended and put in place by a gather, and the squared error
    of *all* patches multiplied by the mask."""

    pos: Tensor
    decoder_pos: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        m = setting.model
        self.patch_size, dim, width = m["patch_size"], m["embed_dim"], m["decoder_embed_dim"]
        self.patch_embed = PatchEmbed(m["img_size"], self.patch_size, 3, dim)
        grid = (m["img_size"] // self.patch_size,) * 2
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos", sincos_positions(dim, grid))
        self.register_buffer("decoder_pos", sincos_positions(width, grid))
        self.blocks = _unfused(dim, m["depth"], m["num_heads"])
        self.norm, self.decoder_norm = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.decoder_embed = nn.Linear(dim, width)
        self.decoder_blocks = _unfused(width, m["decoder_depth"], m["decoder_num_heads"])
        self.pred = nn.Linear(width, self.patch_size**2 * 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens_BLD = self.patch_embed(images) + self.pos[:, 1:]
        b, length, dim = tokens_BLD.shape
        kept = int(length * (1 - RATIO))
        shuffle_BL = torch.argsort(torch.rand(b, length, device=images.device), dim=1)
        restore_BL = torch.argsort(shuffle_BL, dim=1)
        mask_BL = torch.ones(b, length, device=images.device)
        mask_BL[:, :kept] = 0
        mask_BL = torch.gather(mask_BL, 1, restore_BL)
        x = torch.gather(tokens_BLD, 1, shuffle_BL[:, :kept, None].repeat(1, 1, dim))
        cls = (self.cls_token + self.pos[:, :1]).expand(b, -1, -1)
        x = self.decoder_embed(self.norm(self.blocks(torch.cat([cls, x], dim=1))))
        patches = torch.cat([x[:, 1:], self.mask_token.to(x.dtype).repeat(b, length - kept, 1)], dim=1)
        patches = torch.gather(patches, 1, restore_BL[:, :, None].repeat(1, 1, x.shape[2]))
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos
        pred_BLP = self.pred(self.decoder_norm(self.decoder_blocks(x)))[:, 1:]
        error_BL = (pred_BLP - normalise_patches(patchify(images, self.patch_size))).square().mean(dim=-1)
        return (error_BL * mask_BL).sum() / mask_BL.sum()


def _unfused(dim: int, depth: int, heads: int) -> nn.Sequential:
    blocks = [Block(dim, heads, 4.0, qkv_bias=True, norm_layer=nn.LayerNorm) for _ in range(depth)]
    for block in blocks:
        attention: Any = block.attn
        attention.fused_attn = False  # timm's two products and a softmax
    return nn.Sequential(*blocks)


class LightlyMAE(nn.Module):
    """lightly's modules put together as its own MAE example does; the loss is taken on the removed patches alone.

    Raises ConfigError where lightly is not installed.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        try:
            from lightly.models import utils
            from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
        except ImportError as error:
            raise ConfigError("not installed (the extra 'peers')") from error
        m = setting.model
        self.utils, self.patch_size = utils, m["patch_size"]
        names = ("embed_dim", "depth", "num_heads")
        sizes = {k: m[k] for k in ("img_size", "patch_size", *names)}
        vit = VisionTransformer(**sizes, num_classes=0, global_pool="")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 1.6 announces the decoder's successor
            self.backbone = MaskedVisionTransformerTIMM(vit=vit)
            sizes = {k: m[k] for k in ("patch_size", "embed_dim", *(f"decoder_{name}" for name in names))}
            self.decoder = MAEDecoderTIMM(num_patches=vit.patch_embed.num_patches, **sizes)
        self.length = self.backbone.sequence_length

    def forward(self, images: Tensor) -> Tensor:
        b, utils = len(images), self.utils
        keep, removed = utils.random_token_mask((b, self.length), mask_ratio=RATIO, device=images.device)
        x = self.decoder.embed(self.backbone.encode(images=images, idx_keep=keep))
        full = utils.repeat_token(self.decoder.mask_token, (b, self.length)).to(x.dtype)
        x = self.decoder.decode(utils.set_at_index(full, keep, x))
        pred = self.decoder.predict(utils.get_at_index(x, removed))
        target = utils.get_at_index(normalise_patches(utils.patchify(images, self.patch_size)), removed - 1)
        return nn.functional.mse_loss(pred, target)


PEERS: dict[str, Any] = {"lightly": LightlyMAE, "reference": ReferenceDesign}
