"""Attentive probe (efficient probing) on CIFAR-10 images at random places of photographs, half of the area.

Command:  make suite SUITE=configs/suites/map_50_transfers.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/..."
Hardware: 1 core of an Intel Xeon. Time: 20 processor seconds.
Expected: top-1 34.9 from MAE, 34.7 to 35.5 from masks, 47.0 from joint labels (one seed).

Frozen patches, read once; 4,000 labels, 7,500 test images, as in finetune_scenes.py.
"""

_base_ = "finetune_scenes.py"
name = "attentive_scenes"
protocol = "linear"
pooling = "attentive"
queries = 8
data = dict(augment=None, batch_size=128)
optim = dict(lr=1e-3, weight_decay=0.05, layer_decay=1.0)
train = dict(epochs=20, amp="none", label_smoothing=0.0)
