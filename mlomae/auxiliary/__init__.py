"""Losses beside the reconstruction, one file each; `create` builds one by name."""

from mlomae.auxiliary import classification, uniformity  # noqa: F401  (importing a loss registers it)
from mlomae.auxiliary.base import AuxiliaryLoss, create, list_auxiliaries, register

__all__ = ["AuxiliaryLoss", "create", "list_auxiliaries", "register"]
