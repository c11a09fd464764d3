"""Pictures of what the model sees: image, what is left of it, scores, reconstruction; one column per image.

Shape legend: B images, L patches, P values in a patch.
"""

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid, save_image

from mlomae.common.atomic import replacing
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD
from mlomae.masking import MaskState
from mlomae.models.mae import patchify, unpatchify
from mlomae.pretraining.log import logger
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.trainer import Hook

MIN_SIDE = 64  # pixels of one tile: small images are enlarged without smoothing
EARLY = 10  # iterations after which a run draws its first picture
MARGIN, FONT = 130, 14  # pixels: room for the titles of the rows, and their height


def colour(values_BL: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Scores in [0, 1] as viridis tiles, (B, 3, side, side)."""
    import matplotlib

    table = torch.tensor(matplotlib.colormaps["viridis"].colors)  # type: ignore[attr-defined]
    index = (values_BL.float().cpu().nan_to_num().clamp(0, 1) * 255).long()
    tiles = table[index].float().reshape(-1, *grid, 3).permute(0, 3, 1, 2)
    return F.interpolate(tiles, size=(side, side), mode="nearest")


@torch.no_grad()
def reconstruction_sheet(model: Pretrainer, batch: dict[str, Tensor]) -> Tensor:
    """A (3, H, W) picture in [0, 1]; rows: image, what is left of it, scores (σ, or the mask), reconstruction, with
    their titles to the left.

    With normalised targets the predicted patches are given back the mean and deviation of the true ones.
    """
    was_training = model.training
    model.eval()
    mae, image = model.mae, batch["image"]
    size, grid = mae.encoder.patch_size, mae.encoder.grid
    with model.autocast():
        tokens = mae.encoder.embed(image)
        mask = model.choose_mask(tokens, batch)
        pred = mae(tokens, mask).float()
    sigma = model.mask.scores(tokens, MaskState.of(batch))
    model.train(was_training)

    patches = patchify(image, size)
    if mae.norm_pix_loss:
        pred = pred * (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt() + patches.mean(dim=-1, keepdim=True)
    removed = mask.mask.unsqueeze(-1)
    std, mean = torch.tensor(IMAGENET_STD).view(3, 1, 1), torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    show = lambda p: (unpatchify(p, size, grid).cpu() * std + mean).clamp(0, 1)  # noqa: E731
    rows = [
        show(patches),
        show(patches * (1 - removed)),  # 0 is the mean colour: removed patches are grey
        colour(mask.mask if sigma is None else sigma, grid, image.shape[-1]),
        show(patches * (1 - removed) + pred * removed),
    ]
    scale = max(1, MIN_SIDE // image.shape[-1])
    tiles = F.interpolate(torch.cat(rows), scale_factor=scale, mode="nearest")
    titles = ["image", "what is left", "removed" if sigma is None else "score sigma", "reconstruction"]
    return with_titles(make_grid(tiles, nrow=image.shape[0], padding=2, pad_value=1.0), titles)


def with_titles(sheet_3HW: Tensor, titles: list[str]) -> Tensor:
    """``sheet`` in [0, 1] with a white margin to its left, in which each of its equally high rows has its title."""
    _, height, _ = sheet_3HW.shape
    margin = Image.new("RGB", (MARGIN, height), "white")
    draw, font = ImageDraw.Draw(margin), ImageFont.load_default(FONT)
    for row, title in enumerate(titles):
        place = (MARGIN - 8, (row + 0.5) * height / len(titles))
        draw.text(place, title, fill="black", font=font, anchor="rm")
    return torch.cat([pil_to_tensor(margin).float() / 255, sheet_3HW], dim=2)


def picture_hook(model: Pretrainer, probe: dict[str, Tensor], folder: Path, images: int = 8) -> Hook:
    """The trainer's hook that saves the sheet of the first probe images every ``picture_interval``, at the end, and
    after `EARLY` iterations, which shows that all is well."""
    train, shown = model.config.train, {k: v[:images] for k, v in probe.items()}

    def hook(t: int, data: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        done = t + 1
        due = done in (EARLY, train.outer_iterations) or done % train.picture_interval == 0
        if due and is_main_process():
            path = folder / f"iter_{done}.png"
            first = not path.parent.is_dir()
            with replacing(path) as temporary:
                save_image(reconstruction_sheet(model, shown), temporary, format="PNG")
            if first:
                logger.info(f"first picture: {path}")

    return hook
