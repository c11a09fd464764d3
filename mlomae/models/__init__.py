"""Encoder, masked autoencoder, masks and the sizes models come in."""

from mlomae.models.mae import MAE, Mask, keep_count, mask_from_scores
from mlomae.models.vit import SIZES, ViT, create_encoder

__all__ = ["MAE", "SIZES", "Mask", "ViT", "create_encoder", "keep_count", "mask_from_scores"]
