"""Linear head (SGD) on CUB-200-2011, 200 birds.

Command:  make bench-cls CONFIG=configs/classification/linear_cub200.py CKPT=path/to/backbone DATA=path/to/data
Hardware: any GPU, minutes: features are computed once, without augmentation. Not run here.
Expected: none published.
"""

_base_ = "../_base_/linear.py"
name = "linear_cub200"
data = dict(
    train=dict(type="cub200", root="data/cub200", split="train"),
    test=dict(type="cub200", root="data/cub200", split="test"),
    augment=None,
    batch_size=256,
    num_workers=8,
)
optim = dict(type="sgd", lr=0.1)
