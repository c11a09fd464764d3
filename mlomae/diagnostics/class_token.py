"""What the class token reads, whether reconstruction needs it, and what it would know if it read elsewhere.

MAE's class token has no loss of its own: it is whatever the decoder finds useful. Three measures: on which patches its
attention lies; by how much the error rises if it says nothing of the image; and, an intervention, how well it tells the
classes apart if every layer lets it read one part of the image alone, with the weights as they are.

Shape legend: B images, H of the head batches, U of an upper batch, h heads, d width of a head, N = 1 + L tokens, L
patches, R removed patches, D token width.
"""

from typing import Any

import torch
from torch import Tensor

from mlomae.masking.sampling import central_patches, object_patches
from mlomae.models import ViT
from mlomae.pretraining.evaluation import MIDDLE, NEIGHBOURS, knn_accuracy
from mlomae.pretraining.pretrainer import Batch, Pretrainer

LabelledParts = tuple[dict[str, Tensor], Tensor]
"""`read_parts` of a batch, and its labels, (B,)."""


@torch.no_grad()
def read_image(encoder: ViT, image_B3SS: Tensor, seen_BL: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The class token (B, D), and of each layer (B, L): how the attention that it pays to patches is divided among
    them, the mean over heads; rows sum to 1. Whole images.

    ``seen_BL``, bool: the class token reads itself and these patches alone. Patches still read all, the class token
    too; what it reads is shared out among the patches it sees, as the softmax does.
    """
    x_BND, found = encoder.with_class_token(encoder.embed(image_B3SS)), []
    blocks: Any = encoder.blocks
    for block in blocks:
        attention, dim = block.attn, x_BND.shape[2]
        q_BNhd, k_BNhd, v_BNhd = (
            part.unflatten(2, (attention.num_heads, -1)) for part in attention.qkv(block.norm1(x_BND)).split(dim, dim=2)
        )
        score_BhN = torch.einsum("bhd,bnhd->bhn", q_BNhd[:, 0], k_BNhd) * attention.scale
        if seen_BL is not None:
            score_BhN[:, :, 1:] = score_BhN[:, :, 1:].masked_fill(~seen_BL[:, None], -torch.inf)
        found.append(score_BhN[:, :, 1:].softmax(dim=2).mean(dim=1))
        read_B1D = torch.einsum("bhn,bnhd->bhd", score_BhN.softmax(dim=2), v_BNhd).flatten(1)[:, None]
        first_B1D = x_BND[:, :1] + attention.proj(read_B1D)
        first_B1D = first_B1D + block.mlp(block.norm2(first_B1D))
        x_BND = torch.cat([first_B1D, block(x_BND)[:, 1:]], dim=1)
    return encoder.norm(x_BND)[:, 0], found


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
    share_BL = torch.stack(read_image(encoder, batch["image"])[1]).mean(dim=0).cpu()
    middle_BL = central_patches(encoder.grid, MIDDLE).expand_as(share_BL)
    objects = None if object_BL is None else lift(share_BL, object_BL.float().cpu())
    return {"middle": lift(share_BL, middle_BL), "objects": objects, "needed": error_without(model, batch)}


def read_parts(encoder: ViT, batch: Batch) -> dict[str, Tensor]:
    """The class token (B, D), on the CPU, if it may read ``all`` of the image, the ``middle`` quarter, the ``border``
    around that, or the patches of ``objects``, where the batch knows them. A grid without patches inside the middle has
    neither middle nor border."""
    image_B3SS = batch["image"]
    middle_BL = central_patches(encoder.grid, MIDDLE).bool().to(image_B3SS.device).expand(len(image_B3SS), -1)
    seen: dict[str, Tensor | None] = {"all": None}
    if middle_BL.any():
        seen |= {"middle": middle_BL, "border": ~middle_BL}
    if "object" in batch:
        seen["objects"] = object_patches(batch["object"], encoder.grid) > 0
    return {name: read_image(encoder, image_B3SS, seen_BL)[0].float().cpu() for name, seen_BL in seen.items()}


def knn_of_parts(head: list[LabelledParts], upper: list[LabelledParts]) -> dict[str, list[float]]:
    """Top-1 of k-NN in percent for each part of `read_parts`: of every upper batch among the images of all head
    batches. Nothing where these are of one class."""
    label_H = torch.cat([labels for _, labels in head])
    if len(label_H.unique()) < 2:
        return {}
    found, k = {}, min(NEIGHBOURS, len(label_H))
    for name in (name for name in head[0][0] if name in upper[0][0]):
        train_HD = torch.cat([parts[name] for parts, _ in head])
        found[name] = [knn_accuracy(train_HD, label_H, parts[name], label_U, k=k) for parts, label_U in upper]
    return found
