"""Fine-tuning of a small ViT at 48 pixels on the first 10 classes of CUB-200-2011 (300 training and 243 test images).

Command:  make bench-cls CONFIG=configs/classification/finetune_cub200_small.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 1 core of an AMD EPYC. Time: 3.2 processor minutes.
Expected: top-1 MAE 37.3 ± 0.2, MLO-MAE (nca, mask pooling) 37.7 ± 1.3, random weights 33.1 ± 3.1 (3 seeds; backbones
of configs/pretrain/*_vit-w128-d4_cifar10.py, whose position embeddings are interpolated).
"""

_base_ = "../_base_/finetune.py"
name = "finetune_cub200_small"
backbone = dict(img_size=48, drop_path=0.0)
data = dict(
    train=dict(type="cub200", root="data/cub200", split="train", subset=True),
    test=dict(type="cub200", root="data/cub200", split="test", subset=True),
    augment=dict(_delete_=True, type="crop_flip", scale=(0.35, 1.0)),
    evaluate=dict(crop_pct=1.0),
    mix=None,
    batch_size=60,
    num_workers=0,
)
optim = dict(lr=1e-3, layer_decay=0.75, warmup=0.1)
train = dict(epochs=40, amp="none", log_interval=60, checkpoint_interval=300)
