"""Transfer to object detection and instance masks: a pretrained ViT under mmdet's Mask R-CNN, nothing to compile."""

from mlomae.backbones import mmcv_ops as ops

ops.install()  # before anything of mmdet, here and in the workers that unpickle something of this package
