"""CIFAR-100: 50,000 training images (80 % lower level and head, 20 % upper level), 10,000 test images to evaluate on.

The root is a folder with the standard python batches or an image-folder tree (train/CLASS/*, test/CLASS/*).
"""

data = dict(
    train=dict(type="cifar100", root="data/cifar100", split="train"),
    eval=dict(type="cifar100", root="data/cifar100", split="test"),
    batch_size=128,
    feedback_batch_size=128,
)
