"""Embedded data: procedural textures; nothing to download. 10,000 training and 2,000 test images of 32 pixels."""

data = dict(
    train=dict(type="textures", split="train"),
    eval=dict(type="textures", split="test"),
    augment=dict(type="PadCropFlip"),  # random resized crops would blur the textures, which are the classes
    feedback_augment=dict(type="PadCropFlip"),
    batch_size=64,
    feedback_batch_size=32,
)
