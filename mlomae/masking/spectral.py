"""The normalised cut of an image's patches by their features, as a side and as a map.

With W = e^((cosine - 1) / 0.2) and d its row sums, the second eigenvector u of I - d^-½ W d^-½ splits the patches by
its sign (Shi and Malik, "Normalized Cuts and Image Segmentation", PAMI 2000). The weights are ours: weights that are
linear in the cosine separate groups of unequal size wrongly.

Shape legend: B batch, L patches, D width of the features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.2  # opposite patches have the weight e^-10, which float32 still distinguishes from 0


def unit(features_BLD: Tensor) -> Tensor:
    """Features minus their mean over the image, of length 1.

    Early in training most of a feature is common to all patches, and without subtracting it all similarities are near
    1.
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

    The relaxed indicator d^-½ u of the cut; the side with the largest value is the object, as in TokenCut (Wang et al.,
    CVPR 2022).
    """
    vector_BL, scale_BL = second_eigenvector(unit_BLD)
    vector_BL = vector_BL * scale_BL
    low_B1, high_B1 = vector_BL.amin(dim=1, keepdim=True), vector_BL.amax(dim=1, keepdim=True)
    vector_BL = torch.where(high_B1 >= -low_B1, vector_BL - low_B1, high_B1 - vector_BL)
    alike_B1 = unit_BLD.square().sum(dim=(1, 2)).unsqueeze(1) == 0  # then u is arbitrary
    return torch.where(alike_B1, 0.0, vector_BL / (high_B1 - low_B1))
