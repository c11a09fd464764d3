"""Fine-tuning on ImageNet-1K.

Command:  make bench-cls CONFIG=configs/classification/finetune_imagenet.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 32 V100, about 7 hours for ViT-B (facebookresearch/mae). Not run here.
Expected: 83.6 for MAE ViT-B pretrained for 1,600 epochs (He et al. 2022).
"""

_base_ = "../_base_/finetune.py"
name = "finetune_imagenet"
data = dict(
    train=dict(type="imagenet", root="data/imagenet", split="train"),
    test=dict(type="imagenet", root="data/imagenet", split="val"),
)
