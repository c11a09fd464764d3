"""Linear head (SGD) on a small ViT at 64 pixels: the first 10 classes of CUB-200-2011 (300 training, 243 test images).

Command:  make bench-cls CONFIG=configs/classification/linear_cub200_small.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 1 core of an AMD EPYC. Time: 4 processor seconds.
Expected: top-1 MAE 35.8 ± 3.0, MLO-MAE (nca, mask pooling) 35.5 ± 1.0, random weights 28.7 ± 2.3 (3 seeds; backbones
of configs/pretrain/*_vit-w128-d4_cifar10.py, whose position embeddings are interpolated).
"""

_base_ = "../_base_/linear.py"
name = "linear_cub200_small"
pooling = "avg"
backbone = dict(img_size=64)
data = dict(
    train=dict(type="cub200", root="data/cub200", split="train", subset=True),
    test=dict(type="cub200", root="data/cub200", split="test", subset=True),
    augment=None,
    evaluate=dict(crop_pct=1.0),
    batch_size=60,
    num_workers=0,
)
optim = dict(type="sgd", lr=0.05)
train = dict(epochs=100, amp="none", log_interval=100, checkpoint_interval=1000)
