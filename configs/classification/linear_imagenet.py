"""Linear head (LARS) on ImageNet-1K.

Command:  make bench-cls CONFIG=configs/classification/linear_imagenet.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 8 V100, about 10 hours for ViT-B. Not run here.
Expected: 68.0 for MAE ViT-B pretrained for 1,600 epochs (He et al. 2022).
"""

_base_ = "../_base_/linear.py"
name = "linear_imagenet"
data = dict(
    train=dict(type="imagenet", root="data/imagenet", split="train"),
    test=dict(type="imagenet", root="data/imagenet", split="val"),
)
