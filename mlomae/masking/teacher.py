"""A second encoder that sees whole images: its attention and its features tell a strategy what to mask.

By default it is a copy of the encoder being trained that follows it as an exponential moving average, so that no
pretrained network is needed; or it is a frozen ViT, whose weights go into the checkpoint like the copy's.

A normalised cut splits the patches by its features. With W = e^((cosine - 1) / 0.2) and d its row sums, the sign of
the second eigenvector u of I - d^-½ W d^-½ decides (Shi and Malik, "Normalized Cuts and Image Segmentation", PAMI
2000). The weights are ours: weights that are linear in the cosine separate groups of unequal size wrongly.

Shape legend: B batch, S image side, H heads, N tokens (class token first, registers, patches), L patches of the grid
of the model being trained, D width of the teacher, C channels of a map.
"""

import copy
from typing import Any

import torch
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.errors import ConfigError
from mlomae.common.precision import full_precision, wide
from mlomae.common.registry import check_interval
from mlomae.data.augment import IMAGENET_MEAN, IMAGENET_STD
from mlomae.masking.base import UnweightedMasking
from mlomae.models import MAE
from mlomae.models.architecture import read_encoder
from mlomae.models.loading import create_timm
from mlomae.models.places import HUB, weights_path
from mlomae.models.plain import plain_vit
from mlomae.models.vit import ViT

ENCODER = "encoder"
PRETRAINED = ":pretrained"  # at the end of a name: with pretrained weights, which are downloaded
_TIMM = "timm:"
TEMPERATURE = 0.2  # opposite patches have the weight e^-10, which float32 still distinguishes from 0


@torch.no_grad()
def move_average(copy: nn.Module, current: nn.Module, decay: float) -> None:
    """One step of an exponential moving average of the parameters."""
    for own, theirs in zip(copy.parameters(), current.parameters(), strict=True):
        own.lerp_(theirs, 1.0 - decay)


def class_attention(block: Block, x_BND: Tensor) -> Tensor:
    """Attention of the class token in a block with the input ``x_BND``: (B, H, N), rows that sum to 1."""
    attention: Any = block.attn
    qkv = attention.qkv(block.norm1(x_BND)).unflatten(2, (3, attention.num_heads, -1))
    q_BNHd, k_BNHd, _ = qkv.unbind(2)
    q_BNHd, k_BNHd = attention.q_norm(q_BNHd[:, :1]), attention.k_norm(k_BNHd)
    with full_precision(x_BND.device):  # in bf16 similar patches would tie
        logits = torch.einsum("bqhd,bnhd->bhqn", wide(q_BNHd) * attention.scale, wide(k_BNHd))
    return logits.squeeze(2).softmax(dim=-1)


def create_teacher(spec: str, size: int) -> tuple[Any, dict[str, Any]]:
    """The model that ``spec`` names, for images of ``size`` pixels, without a head; mean and std of its images.

    ``spec``: ``timm:NAME``, ``timm:NAME:pretrained``, or weights as `mlomae.models.places.locate` takes them; {} is
    returned for what does not say how its images are normalised. Raises ConfigError for what is not a plain ViT with a
    class token or does not fit the size, CheckpointError for weights that cannot be loaded.
    """
    if not spec.startswith(_TIMM):
        file, architecture, _ = read_encoder(spec)
        _check_size(spec, architecture.patch_size, size)
        return plain_vit(architecture, file.encoder, num_classes=0, img_size=(size, size))[0], file.pixels
    name = spec.removeprefix(_TIMM).removesuffix(PRETRAINED)
    options: dict[str, Any] = {"num_classes": 0, "img_size": size}
    model = create_timm(name, **options)
    last = model.blocks[-1] if type(model) is VisionTransformer else None
    if type(last) is not Block or not isinstance(last.attn, Attention) or model.cls_token is None:
        raise ConfigError(f"teacher '{spec}' is not a plain ViT with a class token; choose one, e.g. vit_small_patch16")
    for patch in model.patch_embed.patch_size:
        _check_size(spec, patch, size)
    model = create_timm(name, pretrained=True, **options) if spec.endswith(PRETRAINED) else model
    return model, model.pretrained_cfg


def _check_size(spec: str, patch: int, size: int) -> None:
    if size % patch:
        raise ConfigError(
            f"teacher '{spec}' has patches of {patch} pixels, which do not divide images of {size}; "
            "set mask.teacher_size to a multiple"
        )


class Teacher(nn.Module):
    """Attention and features of whole images, on the patch grid of the model being trained.

    - ``spec``: "encoder", a copy of the encoder being trained; or, frozen, a plain ViT with a class token:
      ``timm:NAME`` (timm's random initialisation), ``timm:NAME:pretrained``, a file of weights, a run's or Hugging
      Face's folder, or ``hf-hub:OWNER/NAME``.
    - ``decay``: of the copy's moving average, per outer iteration; 0 copies the encoder. No effect on timm's models.
    - ``size``: side in pixels to which images are resized for a frozen model; by default that of the training images,
      to which its positions are interpolated.

    The images are normalised with ImageNet's mean and deviation, the default of the augmentations; for a frozen model
    that has its own they are renormalised with these. If its patch grid differs, maps and features are interpolated
    bilinearly.

    Raises ConfigError for values out of range and unusable models, CheckpointError for weights that cannot be loaded.
    """

    def __init__(self, spec: str = ENCODER, decay: float = 0.996, size: int | None = None) -> None:
        super().__init__()
        if spec != ENCODER and not spec.startswith((_TIMM, *HUB)) and not weights_path(spec).exists():
            raise ConfigError(
                f"unknown teacher '{spec}'; choose '{ENCODER}', timm:NAME, timm:NAME:pretrained, hf-hub:OWNER/NAME or "
                "a file of weights"
            )
        check_interval(decay, "[0, 1)", "option 'decay' of the teacher")
        if size is not None and (size < 1 or spec == ENCODER):
            raise ConfigError(f"teacher_size={size} must be a positive number of pixels, and is for frozen models only")
        self.spec, self.decay, self.size = spec, decay, size

    def attach(self, mae: MAE) -> None:
        """Build the model; random weights come from the global generator, as all initial weights do."""
        self.grid, self.side = mae.encoder.grid, self.size or mae.encoder.img_size
        frozen = self.spec != ENCODER
        given: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        self.model: Any
        self.model, own = create_teacher(self.spec, self.side) if frozen else (copy.deepcopy(mae.encoder), given)
        self.model.requires_grad_(False).eval()
        self.own_grid = self.model.patch_embed.grid_size if frozen else self.grid
        self.prefix = self.model.num_prefix_tokens if frozen else 1  # tokens before the patches
        own = {**given, **own}
        mean, std, own_mean, own_std = (
            torch.tensor(values[key]).view(3, 1, 1) for values in (given, own) for key in ("mean", "std")
        )
        self.scale = nn.Buffer(std / own_std, persistent=False)
        self.shift = nn.Buffer((mean - own_mean) / own_std, persistent=False)

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode, whatever mode the model around it is in."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, mae: MAE) -> None:
        """One step of the moving average; nothing for a frozen model."""
        if self.spec == ENCODER:
            move_average(self.model, mae.encoder, self.decay)

    @torch.no_grad()
    def attention(self, images_B3SS: Tensor) -> Tensor:
        """Attention of the last block's class token to the patches, (B, H, L), at least float32.

        A head's row sums to 1 minus its attention to the class token and registers (interpolated maps approximately).
        """
        x_BND = self.model.blocks[:-1](self._embed(images_B3SS))
        return self._on_grid(class_attention(self.model.blocks[-1], x_BND)[:, :, self.prefix :])

    @torch.no_grad()
    def features(self, images_B3SS: Tensor) -> Tensor:
        """Patch tokens after the last block and the model's final norm, (B, L, D), at least float32."""
        x_BND = self.model.norm(self.model.blocks(self._embed(images_B3SS)))[:, self.prefix :]
        return self._on_grid(wide(x_BND).mT).mT

    def _embed(self, images_B3SS: Tensor) -> Tensor:
        """Input of the first block, (B, N, D)."""
        if isinstance(self.model, ViT):
            return self.model.with_class_token(self.model.embed(images_B3SS))
        if images_B3SS.shape[-1] != self.side:
            images_B3SS = F.interpolate(images_B3SS, (self.side, self.side), mode="bicubic", antialias=True)
        tokens_BLD = self.model.patch_embed(images_B3SS * self.scale + self.shift)
        return self.model.norm_pre(self.model._pos_embed(tokens_BLD))

    def _on_grid(self, maps_BCL: Tensor) -> Tensor:
        """Maps of the teacher's patches as maps of the patches to be masked."""
        if self.own_grid == self.grid:
            return maps_BCL
        maps = maps_BCL.unflatten(2, self.own_grid)
        return F.interpolate(maps, self.grid, mode="bilinear", antialias=True).flatten(2)


class TaughtMasking(UnweightedMasking):
    """Base class of strategies with a `Teacher`, whose state is the same on all ranks and in every checkpoint.

    Their options ``teacher``, ``decay`` and ``teacher_size`` are ``spec``, ``decay`` and ``size`` of `Teacher`.
    """

    def __init__(
        self,
        embed_dim: int,
        grid: tuple[int, int],
        teacher: str = ENCODER,
        decay: float = 0.996,
        teacher_size: int | None = None,
    ) -> None:
        super().__init__(embed_dim, grid)
        self.teacher = Teacher(teacher, decay, teacher_size)

    def attach(self, mae: MAE) -> None:
        self.teacher.attach(mae)

    def follow(self, mae: MAE, progress: float) -> None:
        self.teacher.follow(mae)


# --- the normalised cut of an image's patches ------------------------------------------------------------------------


def unit(features_BLD: Tensor) -> Tensor:
    """Features minus their mean over the image, of length 1.

    Early in training most of a feature is common to all patches: without the subtraction all similarities are near 1.
    """
    centred = features_BLD - features_BLD.mean(dim=1, keepdim=True)
    return F.normalize(centred.nan_to_num(), dim=2)  # a diverged run should fail on its loss, not in eigh


def second_eigenvector(unit_BLD: Tensor) -> tuple[Tensor, Tensor]:
    """u and d^-½, each (B, L); the sign of u is arbitrary."""
    weight_BLL = ((unit_BLD @ unit_BLD.mT - 1) / TEMPERATURE).exp()
    scale_BL = weight_BLL.sum(dim=2).rsqrt()
    identity = torch.eye(unit_BLD.shape[1], dtype=unit_BLD.dtype, device=unit_BLD.device)
    laplacian_BLL = identity - scale_BL.unsqueeze(2) * weight_BLL * scale_BL.unsqueeze(1)
    return torch.linalg.eigh(laplacian_BLL).eigenvectors[..., 1], scale_BL


def normalised_cut(unit_BLD: Tensor) -> Tensor:
    """Patches that the cut separates from the first patch, (B, L) bool."""
    side_BL = second_eigenvector(unit_BLD)[0] > 0
    return side_BL != side_BL[:, :1]


def object_map(unit_BLD: Tensor) -> Tensor:
    """How much a patch belongs to the object, (B, L) from 0 to 1 in every image; 0 if all patches are alike.

    The relaxed indicator d^-½ u of the cut; as in TokenCut (Wang et al., CVPR 2022) the object has the largest value.
    """
    vector_BL, scale_BL = second_eigenvector(unit_BLD)
    vector_BL = vector_BL * scale_BL
    low_B1, high_B1 = vector_BL.amin(dim=1, keepdim=True), vector_BL.amax(dim=1, keepdim=True)
    vector_BL = torch.where(high_B1 >= -low_B1, vector_BL - low_B1, high_B1 - vector_BL)
    alike_B1 = unit_BLD.square().sum(dim=(1, 2)).unsqueeze(1) == 0  # then u is arbitrary
    return torch.where(alike_B1, 0.0, vector_BL / (high_B1 - low_B1))
