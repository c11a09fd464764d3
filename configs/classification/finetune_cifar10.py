"""Fine-tuning on CIFAR-10 at its own 32 pixels, for backbones pretrained at that size.

Command:  make bench-cls CONFIG=configs/classification/finetune_cifar10.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 1 GPU, about 15 minutes for the ViT of configs/_base_/vit-w128-d4_32px.py; 2 CPU cores, 4 hours. Not run here.
Expected: not measured.
"""

_base_ = "../_base_/finetune.py"
name = "finetune_cifar10"
backbone = dict(img_size=32)
data = dict(
    train=dict(type="cifar10", root="data/cifar10", split="train"),
    test=dict(type="cifar10", root="data/cifar10", split="test"),
    augment=dict(_delete_=True, type="pad_crop", auto_augment="rand-m9-mstd0.5-inc1", reprob=0.25),
    evaluate=dict(crop_pct=1.0),
    batch_size=256,
    num_workers=4,
)
optim = dict(lr=1e-3, layer_decay=0.75)
train = dict(amp="none")
