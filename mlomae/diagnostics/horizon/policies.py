"""Policies of the horizon study: fixed rules that give every removed patch a number s, by which its loss is weighted.

    w = 1 + ε s

s has mean 0 and standard deviation 1 over the removed patches of an image, so that a policy moves weight between
patches and leaves the size of the step alone; an image that a rule cannot tell apart (no object among its removed
patches) has s = 0. Rules see pixels, masks and the checkpoint's weights only, never the weights of a roll-out.

Shape legend: B images, L patches, D token width, H hidden width, P values in a patch.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError
from mlomae.masking.sampling import object_patches
from mlomae.models.mae import patchify
from mlomae.pretraining.losses import patch_errors
from mlomae.pretraining.pretrainer import Pretrainer

Batch = dict[str, Any]

HIDDEN = 64  # of the random scorers
NAMED = ("object", "error", "contrast")
RANDOM = "random"


def policy_names(count: int, has_objects: bool) -> list[str]:
    """``count`` policies: object (where the data has objects), error, contrast, then random_1, random_2, ...

    Raises ConfigError for a ``count`` below 1.
    """
    if count < 1:
        raise ConfigError(f"--policies {count} must be at least 1; a correlation needs 3, and 8 to mean something")
    named = [name for name in NAMED if has_objects or name != "object"]
    return [*named, *(f"{RANDOM}_{i + 1}" for i in range(count - len(named)))][:count]


class Policies:
    """s (B, L) of a policy by its name, from a copy of ``model`` as it is now.

    - ``object``: patches that objects cover (`mlomae.masking.strategies.oracle`); the batch must have ``object``.
    - ``error``: reconstruction error under the batch's mask, at the checkpoint.
    - ``contrast``: standard deviation of the patch's pixels.
    - ``random_N``: a random two-layer network on LayerNormed patch embeddings. Positions are left out: under
      random crops, a preference for places has hardly any effect that a roll-out could measure.

    ``limit`` bounds ±s, 1/ε say, so that the weights of +s and of −s stay inside [0, 2] and remain mirror images.
    """

    def __init__(self, model: Pretrainer, seed: int, limit: float = math.inf) -> None:
        self.model, self.seed, self.limit = copy.deepcopy(model).requires_grad_(False), seed, limit

    @torch.no_grad()
    def __call__(self, name: str, batch: Batch) -> Tensor:
        """s (B, L), zero on kept patches; ``batch`` has its mask frozen in."""
        mask_BL = batch["mask"]["mask"]
        return standardise_removed(self._values(name, batch), mask_BL).clamp(-self.limit, self.limit)

    def _values(self, name: str, batch: Batch) -> Tensor:
        """The rule's own number for every patch, (B, L), in any unit."""
        encoder = self.model.mae.encoder
        if name == "object":
            return object_patches(batch["object"], encoder.grid).to(batch["image"].dtype)
        if name == "error":
            return patch_errors(self.model, batch)
        if name == "contrast":
            return patchify(batch["image"], encoder.patch_size).std(dim=-1)
        tokens_BLD = encoder.patch_embed(batch["image"])
        first_DH, second_H = self._scorer(name, tokens_BLD)
        return F.gelu(F.layer_norm(tokens_BLD, tokens_BLD.shape[-1:]) @ first_DH) @ second_H

    def _scorer(self, name: str, tokens_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (D, H) and (H,), functions of (seed, name); their signs are symmetric, so s and −s are as likely."""
        width = tokens_BLD.shape[-1]
        first = _normal(random_keys.root_key(self.seed, "horizon/policy", name, 1), width * HIDDEN)
        second_H = _normal(random_keys.root_key(self.seed, "horizon/policy", name, 2), HIDDEN) / math.sqrt(HIDDEN)
        return (first.view(width, HIDDEN) / math.sqrt(width)).to(tokens_BLD), second_H.to(tokens_BLD)


def standardise_removed(values_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over an image's removed patches; 0 on kept ones, and where all are equal."""
    mask_BL = mask_BL.to(values_BL)
    count_B1 = mask_BL.sum(dim=1, keepdim=True)
    centred_BL = (values_BL - (mask_BL * values_BL).sum(dim=1, keepdim=True) / count_B1) * mask_BL
    deviation_B1 = (centred_BL.square().sum(dim=1, keepdim=True) / count_B1).sqrt()
    # an image of equal values would divide the rounding of its mean by the rounding of its deviation
    size_B1 = values_BL.abs().amax(dim=1, keepdim=True)
    flat_B1 = deviation_B1 <= 1e-5 * size_B1
    return torch.where(flat_B1, 0.0, centred_BL / torch.where(flat_B1, 1.0, deviation_B1))


def _normal(key: int, n: int) -> Tensor:
    """(n,) standard normal numbers of a key, float32, the same on every device."""
    return math.sqrt(2.0) * torch.erfinv(2.0 * random_keys.uniform(torch.tensor(key), n) - 1.0)
