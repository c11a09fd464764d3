"""What a loss beside the reconstruction is, and the registry: controls that change the loss and not the mask."""

from __future__ import annotations

from torch import Tensor, nn

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Registry
from mlomae.masking.adaptive import Reconstruction


class AuxiliaryLoss(nn.Module):
    """A term added to L_I; its parameters, if it has any, move together with θ. Raises ConfigError for a weight below
    0."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not weight >= 0:
            raise ConfigError(f"auxiliary loss: weight must be at least 0; got {weight}")
        self.weight = weight

    def forward(self, seen: Reconstruction) -> Tensor:
        """The weighted term, a scalar, mean over the images."""
        raise NotImplementedError


_AUXILIARIES = Registry[AuxiliaryLoss]("auxiliary loss")
register = _AUXILIARIES.register


def list_auxiliaries() -> list[str]:
    """Names that `create` accepts."""
    return _AUXILIARIES.names()


def create(name: str, *, embed_dim: int, num_classes: int, **kwargs: object) -> AuxiliaryLoss:
    """Build an auxiliary loss; raises ConfigError for an unknown name or option."""
    return _AUXILIARIES.build(name, kwargs, embed_dim=embed_dim, num_classes=num_classes)
