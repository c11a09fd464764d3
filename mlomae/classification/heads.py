"""The heads of a frozen backbone: a linear one, and one that pools the patches by attention before it.

Shape legend: B images, C classes, D backbone width, L patches, M queries.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import root_key


class LinearHead(nn.Sequential):
    """BatchNorm without affine parameters, then a linear layer: (B, D) -> (B, C).

    Weights truncated normal of std 0.01, zero bias, from ``seed`` alone. Source: MAE's main_linprobe.py.
    Under data parallelism each rank standardises with the statistics of its own batch, as there.
    """

    def __init__(self, in_features: int, num_classes: int, seed: int = 0) -> None:
        linear = nn.Linear(in_features, num_classes)
        super().__init__(nn.BatchNorm1d(in_features, affine=False, eps=1e-6), linear)
        generator = torch.Generator().manual_seed(root_key(seed, "linear_head"))
        nn.init.trunc_normal_(linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(linear.bias)


class AttentiveHead(nn.Module):
    """M queries attend to the patches, each for its share of the values; then a `LinearHead`: (B, L, D) -> (B, C).

        a_m = softmax over patches of (x q_m / √D),   y = [Σ_i a_mi (x_i W)_m for m = 1 to M]

    with (·)_m the m-th of M equal parts of a vector. Queries truncated normal of std 0.02 and W uniform as
    ``nn.Linear``'s, from ``seed`` alone. Source: efficient probing, Psomas et al., arXiv 2506.10178: the patches are
    the keys and the queries are parameters, neither of which is projected.

    Raises ConfigError if ``queries`` does not divide D.
    """

    def __init__(self, in_features: int, num_classes: int, queries: int = 16, seed: int = 0) -> None:
        super().__init__()
        if in_features % queries:
            raise ConfigError(f"queries={queries} must divide the width of the backbone, {in_features}")
        generator = torch.Generator().manual_seed(root_key(seed, "attentive_head"))
        self.queries = nn.Parameter(torch.empty(queries, in_features))
        self.value = nn.Linear(in_features, in_features, bias=False)
        self.linear = LinearHead(in_features, num_classes, seed)
        nn.init.trunc_normal_(self.queries, std=0.02, generator=generator)
        nn.init.uniform_(self.value.weight, -(in_features**-0.5), in_features**-0.5, generator=generator)

    def attention(self, patches_BLD: Tensor) -> Tensor:
        """a (B, M, L); sums to 1 over the patches."""
        return F.softmax(self.queries @ patches_BLD.transpose(1, 2) * patches_BLD.shape[2] ** -0.5, dim=2)

    def forward(self, patches_BLD: Tensor) -> Tensor:
        parts_BLMd = self.value(patches_BLD).unflatten(2, (len(self.queries), -1))
        pooled_BMd = torch.einsum("bml,blmd->bmd", self.attention(patches_BLD), parts_BLMd)
        logits_BC: Tensor = self.linear(pooled_BMd.flatten(1))
        return logits_BC
