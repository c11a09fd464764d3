"""Linear head (SGD) on Stanford Cars, 196 makes and models.

Command:  make bench-cls CONFIG=configs/classification/linear_stanford_cars.py CKPT=path/to/backbone DATA=path/to/data
Hardware: any GPU, minutes: features are computed once, without augmentation. Not run here.
Expected: none published.
"""

_base_ = "../_base_/linear.py"
name = "linear_stanford_cars"
data = dict(
    train=dict(type="stanford_cars", root="data/stanford_cars", split="train"),
    test=dict(type="stanford_cars", root="data/stanford_cars", split="test"),
    augment=None,
    batch_size=256,
    num_workers=8,
)
optim = dict(type="sgd", lr=0.1)
