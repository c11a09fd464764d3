"""CIFAR-10 at random places of Tiny-ImageNet's photographs, 64 pixels: 20,000 training and 7,500 test images.

A quarter of the area is object: `share`, to be changed in train and eval alike. Photographs of the evaluation are those
of Tiny-ImageNet's val part. Nothing is padded in labelled images: black borders would dominate the mean of the tokens.
"""

_cifar10 = dict(type="cifar10", root="data")
_photographs = dict(type="tiny_imagenet", root="data/tiny-imagenet-200")

data = dict(
    train=dict(
        type="on_scenes",
        objects=dict(**_cifar10, split="train"),
        scenes=dict(**_photographs, split="train"),
        share=0.25,
        count=20_000,
    ),
    eval=dict(
        type="on_scenes",
        objects=dict(**_cifar10, split="test"),
        scenes=dict(**_photographs, split="val"),
        share=0.25,
        count=7_500,
    ),
    augment=dict(type="PadCropFlip"),  # random resized crops would change the object's share of the image
    feedback_augment=dict(type="PadCropFlip", padding=0),
    batch_size=64,
    feedback_batch_size=256,
)
