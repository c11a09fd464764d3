"""What a feedback loss is, and the registry: stages II and III see the encoder only through it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor, nn

from mlomae.errors import ConfigError


class Feedback(nn.Module):
    """A head on encoder tokens (B, 1 + L, D), class token first; its parameters are ω."""

    def logits(self, tokens_BLD: Tensor) -> Tensor:
        """Class scores (B, C), from which the feedback accuracy is read."""
        raise NotImplementedError

    def forward(self, tokens_BLD: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """A scalar loss, mean over the batch."""
        raise NotImplementedError


_REGISTRY: dict[str, Callable[..., Feedback]] = {}


def register(name: str) -> Callable[[type[Feedback]], type[Feedback]]:
    """Class decorator: make a feedback loss known to `create` under ``name``."""

    def wrap(cls: type[Feedback]) -> type[Feedback]:
        if name in _REGISTRY:
            raise ValueError(f"feedback '{name}' is registered twice")
        _REGISTRY[name] = cls
        return cls

    return wrap


def list_feedbacks() -> list[str]:
    """Names that `create` accepts."""
    return sorted(_REGISTRY)


def create(name: str, *, embed_dim: int, num_classes: int, **kwargs: object) -> Feedback:
    """Build a feedback loss; raises ConfigError for an unknown name or option."""
    if name not in _REGISTRY:
        raise ConfigError(f"unknown feedback '{name}'; choose one of {', '.join(list_feedbacks())}")
    options = [p for p in inspect.signature(_REGISTRY[name]).parameters if p not in ("embed_dim", "num_classes")]
    unknown = sorted(set(kwargs) - set(options))
    if unknown:
        raise ConfigError(f"feedback '{name}' has no option '{unknown[0]}'; it has {', '.join(options) or 'none'}")
    return _REGISTRY[name](embed_dim=embed_dim, num_classes=num_classes, **kwargs)
