"""Linear head (SGD) on a small ViT at 64 pixels: 50 classes of Stanford Cars (800 training and 400 test images).

Command:  make bench-cls CONFIG=configs/classification/linear_stanford_cars_small.py CKPT=backbone DATA=folder
Hardware: 1 core of an AMD EPYC. Time: 11 processor seconds.
Expected: top-1 MAE 12.8 ± 1.3, MLO-MAE (nca, mask pooling) 12.5 ± 1.1, random weights 11.0 ± 1.1 (3 seeds; backbones
of configs/pretrain/*_vit-w128-d4_cifar10.py, whose position embeddings are interpolated).
"""

_base_ = "../_base_/linear.py"
name = "linear_stanford_cars_small"
pooling = "avg"
backbone = dict(img_size=64)
data = dict(
    train=dict(type="stanford_cars", root="data/stanford_cars", split="train", subset=True),
    test=dict(type="stanford_cars", root="data/stanford_cars", split="test", subset=True),
    augment=None,
    evaluate=dict(crop_pct=1.0),
    batch_size=80,
    num_workers=0,
)
optim = dict(type="sgd", lr=0.05)
train = dict(epochs=100, amp="none", log_interval=100, checkpoint_interval=1000)
