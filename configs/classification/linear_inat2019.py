"""Linear head (SGD) on iNaturalist 2019, 1,010 species; accuracy on the validation part (test labels are not public).

Command:  make bench-cls CONFIG=configs/classification/linear_inat2019.py CKPT=path/to/backbone DATA=path/to/data
Hardware: any GPU, minutes: features are computed once, without augmentation. Not run here.
Expected: none published.
"""

_base_ = "../_base_/linear.py"
name = "linear_inat2019"
data = dict(
    train=dict(type="inat2019", root="data/inat2019", split="train"),
    test=dict(type="inat2019", root="data/inat2019", split="val"),
    augment=None,
    batch_size=256,
    num_workers=8,
)
optim = dict(type="sgd", lr=0.1)
