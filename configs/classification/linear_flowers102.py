"""Linear head (SGD) on Oxford Flowers, 102 classes; trained on train and validation part together.

Command:  make bench-cls CONFIG=configs/classification/linear_flowers102.py CKPT=path/to/backbone DATA=path/to/data
Hardware: any GPU, minutes: features are computed once, without augmentation. Not run here.
Expected: none published.
"""

_base_ = "../_base_/linear.py"
name = "linear_flowers102"
data = dict(
    train=dict(type="flowers102", root="data/flowers102", split="trainval"),
    test=dict(type="flowers102", root="data/flowers102", split="test"),
    augment=None,
    batch_size=256,
    num_workers=8,
)
optim = dict(type="sgd", lr=0.1)
