"""Transfer to semantic segmentation: a pretrained ViT under mmseg's heads (UperNet)."""

from mlomae.backbones import mmcv_ops as ops

ops.install()  # mmseg.models imports mmdet, which without operators would be of no use to the rest of the process
