"""Transfer to semantic segmentation: a pretrained ViT under mmseg's heads (UperNet)."""
