"""The three losses of pretraining as pure functions: of a model's parameters and a batch, neither of which they change.

`level_problem` hands them to the solvers as functions of (θ, φ, ω). Batches are those of `mlomae.data` streams.

Shape legend: B images, L patches, R removed patches, N = 1 + L tokens, D token width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from mlomae.feedback import JointFeedback
from mlomae.masking import AdaptiveMasking, MaskState
from mlomae.multilevel import Params, ThreeLevelProblem
from mlomae.pretraining.pretrainer import Pretrainer

Batch = dict[str, Any]


class LowerTerms(NamedTuple):
    """``loss`` L_I with all that is added to it; ``added`` the auxiliary loss and the strategy's own, None without
    either; ``error`` the plain mean of the removed patches' errors, which compares methods whatever their weights. All
    0-dim, the last two detached."""

    loss: Tensor
    added: Tensor | None
    error: Tensor


def lower_terms(model: Pretrainer, batch: Batch) -> LowerTerms:
    """Stage I: L_I = Σ m·σ·rec / Σ m, or with normalize="weight" the mean over images of Σ mσ rec / Σ mσ; added
    the strategy's own loss and the auxiliary one, where there are any.

    L_I is a mean over images, because every image has the same number of removed patches: so the loss of a
    global batch is the mean of its parts' losses, which data parallelism and accumulation rely on.
    """
    seen = model.reconstruct(batch)
    mask_BR, weight_BR = (seen.mask.of_removed(t) for t in (seen.mask.mask, seen.mask.mask * seen.mask.weight))
    if model.mask.normalize == "weight":
        loss = ((weight_BR * seen.rec_BR).sum(dim=1) / weight_BR.sum(dim=1)).mean()
    else:
        loss = (weight_BR * seen.rec_BR).sum() / mask_BR.sum()
    error = (mask_BR * seen.rec_BR.detach()).sum() / mask_BR.sum()
    terms = [model.mask.own_loss(seen)] if isinstance(model.mask, AdaptiveMasking) else []
    terms += [model.auxiliary(seen)] if model.auxiliary is not None else []
    if not terms:
        return LowerTerms(loss, None, error)
    added = torch.stack(terms).sum()
    return LowerTerms(loss + added, added.detach(), error)


def lower(model: Pretrainer, batch: Batch) -> Tensor:
    """L_I with all that is added to it, 0-dim."""
    return lower_terms(model, batch).loss


def patch_errors(model: Pretrainer, batch: Batch) -> Tensor:
    """rec (B, L), the error of every patch."""
    mask, _, latents_BKD, _ = model.encode(batch)
    return model.mae.patch_error(model.mae.decoder(latents_BKD, mask.ids_restore), batch["image"])


def features(model: Pretrainer, batch: Batch) -> Tensor:
    """z (B, N, D), the encoder's tokens of whole images; (B, 1, D), the class token, if the feedback sees no other."""
    encoder = model.mae.encoder
    return encoder(batch["image"]) if model.feedback.sees_patches else encoder.class_token(batch["image"])


def pool_by_score(model: Pretrainer, z_BND: Tensor, batch: Batch) -> Tensor:
    """Tokens (B, N, D), the patches' times Lσ/Σσ: their plain mean is the mean weighted by σ.

    As in stage I, the masking network sees patch embeddings that it cannot change.
    """
    sigma_BL = model.mask.scores(model.mae.encoder.embed(batch["image"]).detach(), MaskState.of(batch))
    assert sigma_BL is not None
    weight_BL = sigma_BL.shape[1] * sigma_BL / sigma_BL.sum(dim=1, keepdim=True)
    return torch.cat([z_BND[:, :1], z_BND[:, 1:] * weight_BL.unsqueeze(-1)], dim=1)


def head(model: Pretrainer, z_BND: Tensor, batch: Batch) -> Tensor:
    """L_II on a head batch, L_III on an upper one, 0-dim: the feedback's loss on tokens as it sees them."""
    return model.feedback(z_BND, batch)


def feedback_tokens(model: Pretrainer, batch: Batch) -> Tensor:
    """Tokens (B, N, D) of labelled images, as the feedback sees them."""
    z_BND = features(model, batch)
    return pool_by_score(model, z_BND, batch) if model.pools_by_score else z_BND


def level_problem(model: Pretrainer) -> ThreeLevelProblem:
    """L_I, the features, L_II and L_III, which are one if the feedback is joint, as functions of (θ, φ, ω)."""

    def at(parameters: Params, function: Any, *args: Any) -> Tensor:
        found: Tensor = functional_call(model, parameters, (function, *args))
        return found

    losses: dict[str, Any] = {"head_loss": lambda omega, z, batch: at(omega, head, z, batch)}
    if isinstance(model.feedback, JointFeedback):
        losses = {"joint_loss": model.feedback.joint_loss}
    if model.pools_by_score:
        losses["pool"] = lambda theta, phi, z, batch: at({**theta, **phi}, pool_by_score, z, batch)
    return ThreeLevelProblem(
        lower=lambda theta, phi, batch: at({**theta, **phi}, lower, batch),
        features=lambda theta, batch: at(theta, features, batch),
        fix=lambda theta, phi, batch: model.freeze_mask(batch),  # at the model's parameters, which these are
        **losses,
    )
