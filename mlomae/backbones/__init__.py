"""Pretrained encoders at work: timm models from any weights, feature maps for dense heads, transfers, export."""
