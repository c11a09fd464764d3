"""What a feedback loss is, and the registry: stages II and III see the encoder only through it.

Shape legend: B batch, H samples of the head batch, U of the upper batch, L patches, D width, C classes.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from mlomae.common.errors import DataError
from mlomae.common.precision import full_precision, wide
from mlomae.common.ranks import gather
from mlomae.common.registry import Registry

Batch = dict[str, Tensor]
Pooling = Literal["cls", "avg"]


class Feedback(nn.Module):
    """A loss on encoder tokens (B, 1 + L, D), class token first; its parameters, if it has any, are ω.

    Attributes:
        name: the feedback in error messages.
        joint: whether stage II is solved inside one loss on both batches (`JointFeedback`).
        dense: whether the classes are those of pixels, not of images.
        pooling: of the tokens; with "cls" the feedback gets the class token alone, (B, 1, D).
    """

    name = ""
    joint = False
    dense = False
    pooling: Pooling = "avg"

    @property
    def sees_patches(self) -> bool:
        return self.dense or self.pooling == "avg"

    def predict(self, tokens_ULD: Tensor, head_tokens_HLD: Tensor | None, head_batch: Batch | None) -> Tensor:
        """Class scores, (U, C) or (U, L, C), for `correct`; a joint feedback needs the head batch."""
        raise NotImplementedError

    def correct(self, scores: Tensor, batch: Batch) -> Tensor:
        """(U,) bool, whether the prediction of an image is right; or the share of its pixels for which it is."""
        return scores.argmax(dim=1) == labels(self.name, batch)

    def forward(self, tokens_BLD: Tensor, batch: Batch) -> Tensor:
        """L_II or L_III of a feedback that is not joint: a scalar, mean over the batch."""
        raise NotImplementedError


class JointFeedback(Feedback):
    """No ω: the head batch's features and labels *are* the classifier, and the loss is differentiated through both.

    The loss couples samples, so that a mean over ranks of their own losses would be another loss: under data
    parallelism it is taken on the samples of all ranks, which `gathered` returns, and is the same on each.
    """

    joint = True

    def __init__(self, name: str, num_classes: int, pooling: Pooling) -> None:
        super().__init__()
        self.name, self.num_classes, self.pooling = name, num_classes, pooling

    def joint_loss(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch, upper_batch: Batch) -> Tensor:
        """A scalar, mean over the global upper batch. Raises DataError for too small a batch or one without labels."""
        raise NotImplementedError

    def scores(self, head_tokens_HLD: Tensor, tokens_ULD: Tensor, head_batch: Batch) -> Tensor:
        """Class scores (U, C) of this rank's upper batch, by the classifier that the global head batch defines."""
        raise NotImplementedError

    def predict(self, tokens_ULD: Tensor, head_tokens_HLD: Tensor | None, head_batch: Batch | None) -> Tensor:
        """`scores`, in full precision."""
        assert head_tokens_HLD is not None
        assert head_batch is not None
        with full_precision(tokens_ULD.device):
            return self.scores(head_tokens_HLD, tokens_ULD, head_batch)

    def gathered(self, tokens_BLD: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pooled features (B, D) and labels (B,) of the global batch: of all ranks, with gradients."""
        return gather(pool(tokens_BLD, self.pooling)), gather(labels(self.name, batch))

    def one_hot(self, label_B: Tensor, like: Tensor) -> Tensor:
        """(B, C) one-hot labels in the dtype of ``like``; zeros for a label outside 0..C-1."""
        classes_C = torch.arange(self.num_classes, device=like.device)
        return (label_B[:, None] == classes_C).to(like.dtype)


def pool(tokens_BLD: Tensor, pooling: Pooling) -> Tensor:
    """(B, D): the class token ("cls") or the mean of the patch tokens ("avg"), at least in float32."""
    x_BD = tokens_BLD[:, 0] if pooling == "cls" else tokens_BLD[:, 1:].mean(dim=1)
    return wide(x_BD)


def labels(name: str, batch: Batch | None) -> Tensor:
    """``batch["label"]`` (B,); raises DataError if there is none."""
    if batch is None or "label" not in batch:
        raise DataError(f"{name} feedback: the batch has no labels; give data.feedback a labelled training source")
    return batch["label"]


_FEEDBACKS = Registry[Feedback]("feedback")
register = _FEEDBACKS.register
list_feedbacks = _FEEDBACKS.names
is_joint = partial(_FEEDBACKS.has, "joint")  # no ω: the head batch is used only when the upper level or a probe runs
is_dense = partial(_FEEDBACKS.has, "dense")  # it predicts classes of pixels, so its batches must carry them


def create(name: str, *, embed_dim: int, num_classes: int, **kwargs: object) -> Feedback:
    """Build a feedback loss; raises ConfigError for an unknown name or option."""
    return _FEEDBACKS.build(name, kwargs, embed_dim=embed_dim, num_classes=num_classes)
