"""CIFAR-10: 50,000 training images (80 % lower level and head, 20 % upper level), 10,000 test images to evaluate on.

The root is a folder with the standard python batches or an image-folder tree (train/CLASS/*, test/CLASS/*).
"""

data = dict(
    train=dict(type="cifar10", root="data/cifar10", split="train"),
    eval=dict(type="cifar10", root="data/cifar10", split="test"),
    batch_size=128,
    feedback_batch_size=128,
)
