"""What the class token reads, and whether reconstruction needs it.

MAE's class token has no loss of its own: it is whatever the decoder finds useful. Two measures say what that is: on
which patches its attention lies, and by how much the error rises if it says nothing of the image.

Shape legend: B images, h heads, d width of a head, N = 1 + L tokens, L patches, R removed patches, D token width.
"""

from typing import Any

import torch
from torch import Tensor

from mlomae.masking.sampling import central_patches
from mlomae.models import ViT
from mlomae.pretraining.evaluation import MIDDLE
from mlomae.pretraining.pretrainer import Batch, Pretrainer


@torch.no_grad()
def attention_of_class_token(encoder: ViT, image_B3SS: Tensor) -> list[Tensor]:
    """Of each layer (B, L): how the attention that the class token pays to patches is divided among them, the mean over
    heads. Whole images; rows sum to 1."""
    x_BND, found = encoder.with_class_token(encoder.embed(image_B3SS)), []
    blocks: Any = encoder.blocks
    for block in blocks:
        attention = block.attn
        q_BNhd, k_BNhd = (
            part.unflatten(2, (attention.num_heads, -1))
            for part in attention.qkv(block.norm1(x_BND)).chunk(3, dim=2)[:2]
        )
        score_BhL = torch.einsum("bhd,bnhd->bhn", q_BNhd[:, 0], k_BNhd[:, 1:]) * attention.scale
        found.append(score_BhL.softmax(dim=2).mean(dim=1))
        x_BND = block(x_BND)
    return found


def lift(share_BL: Tensor, part_BL: Tensor) -> float | None:
    """The share that lies on ``part_BL`` (1 there, 0 elsewhere) over the share of patches that this is, the mean over
    images: 1 as by chance. None if no image has patches of both kinds."""
    area_B = part_BL.mean(dim=1)
    known_B = (area_B > 0) & (area_B < 1)
    if not known_B.any():
        return None
    return float(((share_BL * part_BL).sum(dim=1)[known_B] / area_B[known_B]).mean())


@torch.no_grad()
def error_without(model: Pretrainer, batch: Batch) -> float:
    """By how many percent the mean error of the removed patches rises if the decoder gets the mean of the class tokens
    of the batch in place of each image's own. The mask is that of ``batch`` as the strategy draws it."""
    mask, _, latents_BKD, _ = model.encode(batch)
    same_BKD = torch.cat([latents_BKD[:, :1].mean(dim=0).expand_as(latents_BKD[:, :1]), latents_BKD[:, 1:]], dim=1)
    errors = [
        (model.mae.patch_error(model.mae.decoder(x_BKD, mask.ids_restore), batch["image"]) * mask.mask).sum()
        for x_BKD in (latents_BKD, same_BKD)
    ]
    return float(100.0 * (errors[1] / errors[0] - 1.0))


def read_class_token(model: Pretrainer, batch: Batch, object_BL: Tensor | None) -> dict[str, float | None]:
    """``middle`` and ``objects``: `lift` of the class token's attention, the mean over layers, on the middle quarter of
    the image and on the patches of objects; ``needed``: `error_without`."""
    encoder = model.mae.encoder
    share_BL = torch.stack(attention_of_class_token(encoder, batch["image"])).mean(dim=0).cpu()
    middle_BL = central_patches(encoder.grid, MIDDLE).expand_as(share_BL)
    objects = None if object_BL is None else lift(share_BL, object_BL.float().cpu())
    return {"middle": lift(share_BL, middle_BL), "objects": objects, "needed": error_without(model, batch)}
