"""Encoder, masked autoencoder and the sizes they come in."""

from mlomae.models.mae import MAE, patchify, unpatchify
from mlomae.models.vit import SIZES, ViT, create_encoder

__all__ = ["MAE", "SIZES", "ViT", "create_encoder", "patchify", "unpatchify"]
