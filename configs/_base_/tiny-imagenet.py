"""Tiny-ImageNet or a subset of it: the published folder tiny-imagenet-200, evaluated on its labelled val part."""

data = dict(
    train=dict(type="tiny_imagenet", root="data/tiny-imagenet-200", split="train"),
    eval=dict(type="tiny_imagenet", root="data/tiny-imagenet-200", split="val"),
    batch_size=64,
    feedback_batch_size=64,
)
