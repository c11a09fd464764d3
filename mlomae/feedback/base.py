"""What a feedback loss is, and the registry: stages II and III see the encoder only through it."""

from __future__ import annotations

from torch import Tensor, nn

from mlomae.registry import Registry


class Feedback(nn.Module):
    """A head on encoder tokens (B, 1 + L, D), class token first; its parameters are ω."""

    def logits(self, tokens_BLD: Tensor) -> Tensor:
        """Class scores (B, C), from which the feedback accuracy is read."""
        raise NotImplementedError

    def forward(self, tokens_BLD: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """A scalar loss, mean over the batch."""
        raise NotImplementedError


_FEEDBACKS = Registry[Feedback]("feedback")
register = _FEEDBACKS.register


def list_feedbacks() -> list[str]:
    """Names that `create` accepts."""
    return _FEEDBACKS.names()


def create(name: str, *, embed_dim: int, num_classes: int, **kwargs: object) -> Feedback:
    """Build a feedback loss; raises ConfigError for an unknown name or option."""
    return _FEEDBACKS.build(name, kwargs, embed_dim=embed_dim, num_classes=num_classes)
