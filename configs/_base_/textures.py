"""Embedded data: procedural textures, nothing to download. 10,000 training and 2,000 test images of 32 pixels."""

data = dict(
    train=dict(type="textures", split="train"),
    eval=dict(type="textures", split="test"),
    batch_size=64,
    feedback_batch_size=64,
)
