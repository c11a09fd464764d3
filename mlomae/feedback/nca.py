"""Soft k-NN feedback: neighbourhood component analysis between the upper batch and the head batch.

    p(y_i) = Σ_j softmax_j(cos(z_i − μ, z_j − μ)/τ)·1[y_j = y_i],   loss = −mean_i log p(y_i)

z_i are pooled features of the upper batch, z_j those of the head batch, μ the mean of the latter; two disjoint sets of
images, so that no sample is its own neighbour. Without μ (``centre=False``) all cosines of a young encoder are near 1,
and the softmax is nearly flat. Stage II has no parameters: the head batch is the classifier.

Shape legend: H samples of the head batch, U of the upper batch, L patches, D width, C classes.
Source: Goldberger, Roweis, Hinton, Salakhutdinov, "Neighbourhood Components Analysis", NeurIPS 2004; the cosine with a
temperature as in Wu, Efros, Yu, "Improving Generalization via Scalable Neighborhood Component Analysis", ECCV 2018.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae.common.errors import DataError
from mlomae.common.precision import full_precision
from mlomae.common.registry import Positive
from mlomae.feedback.base import Batch, JointFeedback, Pooling, pool, register


@register("nca")
class NCAFeedback(JointFeedback):
    """The loss above; ``pooling`` "cls" or "avg" over patch tokens.

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

    def similarity(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor) -> Tensor:
        """cos(z_i − μ, z_j − μ)/τ, (U, H)."""
        if not len(head_tokens_HLD):
            raise DataError("nca feedback: the head batch is empty; raise data.feedback_batch_size")
        z_HD, z_UD = pool(head_tokens_HLD, self.pooling), pool(tokens_ULD, self.pooling)
        mean_D = z_HD.mean(dim=0) if self.centre else z_HD.new_zeros(z_HD.shape[1])
        z_HD, z_UD = F.normalize(z_HD - mean_D, dim=1), F.normalize(z_UD - mean_D, dim=1)
        return z_UD @ z_HD.T / self.temperature

    def joint_loss(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch, upper_batch: Batch) -> Tensor:
        with full_precision(tokens_ULD.device):
            s_UH = self.similarity(head_tokens_HLD, tokens_ULD)
            same_UH = (self.one_hot(upper_batch, s_UH) @ self.one_hot(head_batch, s_UH).T) > 0
            known_U1 = same_UH.any(dim=1, keepdim=True)
            # a row without neighbours of its class keeps all neighbours: p = 1, and no infinity enters the gradient
            own_U = s_UH.masked_fill(known_U1 & ~same_UH, -torch.inf).logsumexp(dim=1)
            return (s_UH.logsumexp(dim=1) - own_U).sum() / known_U1.sum().clamp(min=1)

    def scores(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch) -> Tensor:
        """p(c) of every class, (U, C): the soft vote of the head batch."""
        s_UH = self.similarity(head_tokens_HLD, tokens_ULD)
        return s_UH.softmax(dim=1) @ self.one_hot(head_batch, s_UH)
