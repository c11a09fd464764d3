"""Feedbacks without parameters: the head batch is the classifier, and the loss is differentiated through it.

    nca      p(y_i) = Σ_j softmax_j(cos(z_i − μ, z_j − μ)/τ)·1[y_j = y_i],   loss = −mean_i log p(y_i)

Soft k-NN by neighbourhood component analysis: z_i are pooled features of the upper batch, z_j those of the head batch,
μ the mean of the latter; two disjoint sets of images, so that no sample is its own neighbour. Without μ
(``centre=False``) all cosines of a young encoder are near 1, and the softmax is nearly flat.

    ridge    X = (z − μ)/s,   W = (XᵀX + λI)⁻¹ Xᵀ(Y − ȳ),   scores(z) = (z − μ)/s · W + ȳ

Stage II in closed form: μ, s are mean and standard deviation of the head batch's pooled features, Y its one-hot labels,
ȳ their mean (so that the intercept is exact and not penalised). L_III is taken on the upper batch: the cross-entropy of
scores/τ, or the squared error Σ_c (scores_c − y_c)². As ω*(θ) is exact there is no inverse Hessian to approximate.

Shape legend: H samples of the head batch, U of the upper batch, L patches, D width, C classes.
Sources: Goldberger, Roweis, Hinton, Salakhutdinov, "Neighbourhood Components Analysis", NeurIPS 2004; the cosine with a
temperature as in Wu, Efros, Yu, "Improving Generalization via Scalable Neighborhood Component Analysis", ECCV 2018;
Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019 (through the solve).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae.common.errors import ConfigError, DataError
from mlomae.common.precision import full_precision
from mlomae.common.registry import Positive
from mlomae.feedback.base import Batch, JointFeedback, Pooling, pool, register

_EPS = 1e-6  # added to the variance: a constant feature becomes zero
_JITTER = 32.0  # in units of ε times the trace, the rounding error of a Gram matrix


@register("nca")
class NCAFeedback(JointFeedback):
    """The first loss above; ``pooling`` "cls" or "avg" over patch tokens.

    A class that is missing from the head batch has p = 0 whatever the features are: its upper samples are left out of
    the mean (loss and gradient are 0 if none is left), so a feedback batch may be smaller than the number of classes.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        temperature: Positive = 0.1,
        pooling: Pooling = "avg",
        centre: bool = True,
    ) -> None:
        super().__init__("nca", num_classes, pooling)
        self.temperature, self.centre = temperature, centre

    def similarity(self, z_HD: Tensor, z_UD: Tensor) -> Tensor:
        """cos(z_i − μ, z_j − μ)/τ, (U, H)."""
        if not len(z_HD):
            raise DataError("nca feedback: the head batch is empty; raise data.feedback_batch_size")
        mean_D = z_HD.mean(dim=0) if self.centre else z_HD.new_zeros(z_HD.shape[1])
        z_HD, z_UD = F.normalize(z_HD - mean_D, dim=1), F.normalize(z_UD - mean_D, dim=1)
        return z_UD @ z_HD.T / self.temperature

    def joint_loss(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch, upper_batch: Batch) -> Tensor:
        with full_precision(tokens_ULD.device):
            z_HD, label_H = self.gathered(head_tokens_HLD, head_batch)
            z_UD, label_U = self.gathered(tokens_ULD, upper_batch)
            s_UH = self.similarity(z_HD, z_UD)
            same_UH = (self.one_hot(label_U, s_UH) @ self.one_hot(label_H, s_UH).T) > 0
            known_U1 = same_UH.any(dim=1, keepdim=True)
            # a row without neighbours of its class keeps all neighbours: p = 1, and no infinity enters the gradient
            own_U = s_UH.masked_fill(known_U1 & ~same_UH, -torch.inf).logsumexp(dim=1)
            return (s_UH.logsumexp(dim=1) - own_U).sum() / known_U1.sum().clamp(min=1)

    def scores(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch) -> Tensor:
        """p(c) of every class, (U, C): the soft vote of the head batch."""
        z_HD, label_H = self.gathered(head_tokens_HLD, head_batch)
        s_UH = self.similarity(z_HD, pool(tokens_ULD, self.pooling))
        return s_UH.softmax(dim=1) @ self.one_hot(label_H, s_UH)


@register("ridge")
class RidgeFeedback(JointFeedback):
    """The second loss above; ``pooling`` "cls" or "avg" over patch tokens.

    ``penalty`` is λ, on the scale of scikit-learn's ``Ridge(alpha=)``; it must be above 0, so that the system is
    regular however few samples or classes the head batch has (a missing class scores 0 everywhere). If rounding still
    makes it singular, λ grows by 32 ε·tr(XᵀX), with ε of the dtype: just above the rounding error. Features that are
    not finite give NaN, which training reports.
    ``loss`` is "cross_entropy", with ``temperature`` τ (0.1 if None), or "squared_error", which has no temperature.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        penalty: Positive = 10.0,
        loss: Literal["cross_entropy", "squared_error"] = "cross_entropy",
        temperature: Positive | None = None,
        pooling: Pooling = "avg",
    ) -> None:
        super().__init__("ridge", num_classes, pooling)
        if temperature is not None and loss == "squared_error":
            raise ConfigError("ridge feedback: temperature has no effect on loss='squared_error'; remove it")
        self.penalty, self.loss = penalty, loss
        self.temperature = 0.1 if temperature is None else temperature

    def solve(self, x_HD: Tensor, y_HC: Tensor) -> Tensor:
        """W (D, C) for centred X and Y. No host synchronisation; the fallback adds exactly 0 to a regular system."""
        identity = torch.eye(x_HD.shape[1], dtype=x_HD.dtype, device=x_HD.device)
        system_DD = x_HD.T @ x_HD + self.penalty * identity
        # a trial outside the graph: the derivative of a failed factorisation is NaN even if `where` discards it
        trial_DD = system_DD.detach()
        more = _JITTER * torch.finfo(x_HD.dtype).eps * trial_DD.trace()
        more = torch.where(torch.linalg.cholesky_ex(trial_DD).info == 0, 0.0, more)
        factor, failed = torch.linalg.cholesky_ex(system_DD + more * identity)
        return torch.where(failed == 0, torch.cholesky_solve(x_HD.T @ y_HC, factor), torch.nan)

    def regression(self, z_HD: Tensor, label_H: Tensor, z_UD: Tensor) -> Tensor:
        """Regression of the classes' indicators, fitted on the head samples, at the upper ones, (U, C)."""
        if len(z_HD) < 2:
            raise DataError("ridge feedback: a head batch needs at least 2 samples; raise data.feedback_batch_size")
        y_HC = self.one_hot(label_H, z_HD)
        mean_D, scale_D = z_HD.mean(dim=0), (z_HD.var(dim=0, correction=0) + _EPS).sqrt()
        w_DC = self.solve((z_HD - mean_D) / scale_D, y_HC - y_HC.mean(dim=0))
        return (z_UD - mean_D) / scale_D @ w_DC + y_HC.mean(dim=0)

    def scores(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch) -> Tensor:
        return self.regression(*self.gathered(head_tokens_HLD, head_batch), pool(tokens_ULD, self.pooling))

    def joint_loss(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch, upper_batch: Batch) -> Tensor:
        with full_precision(tokens_ULD.device):
            z_UD, label_U = self.gathered(tokens_ULD, upper_batch)
            scores_UC = self.regression(*self.gathered(head_tokens_HLD, head_batch), z_UD)
            if self.loss == "squared_error":
                return (scores_UC - self.one_hot(label_U, scores_UC)).square().sum(dim=1).mean()
            return F.cross_entropy(scores_UC / self.temperature, label_U)
