"""Pretrained encoders in use: timm models from any weights, feature maps for dense heads, transfers, export."""
