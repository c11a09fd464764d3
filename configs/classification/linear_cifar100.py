"""Linear head (SGD) on CIFAR-100 at its own 32 pixels, features computed once.

Command:  make bench-cls CONFIG=configs/classification/linear_cifar100.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 1 core of an AMD EPYC. Time: about 5 processor minutes for a ViT of width 128, depth 4.
Expected: not measured.
"""

_base_ = "../_base_/linear.py"
name = "linear_cifar100"
pooling = "avg"
backbone = dict(img_size=32)
data = dict(
    train=dict(type="cifar100", root="data/cifar100", split="train"),
    test=dict(type="cifar100", root="data/cifar100", split="test"),
    augment=None,
    evaluate=dict(crop_pct=1.0),
    batch_size=512,
    num_workers=0,
)
optim = dict(type="sgd", lr=0.1)
train = dict(amp="none", epochs=30)
