"""Fine-tuning of a small ViT at 48 pixels on 50 classes of Stanford Cars (800 training and 400 test images).

Command:  make bench-cls CONFIG=configs/classification/finetune_stanford_cars_small.py CKPT=backbone DATA=folder
Hardware: 1 core of an AMD EPYC. Time: 9 processor minutes.
Expected: top-1 MAE 18.4 ± 0.5, MLO-MAE (nca, mask pooling) 20.6 ± 0.9, random weights 11.9 ± 0.5 (2 seeds; backbones
of configs/pretrain/*_vit-w128-d4_cifar10.py, whose position embeddings are interpolated).
"""

_base_ = "../_base_/finetune.py"
name = "finetune_stanford_cars_small"
backbone = dict(img_size=48, drop_path=0.0)
data = dict(
    train=dict(type="stanford_cars", root="data/stanford_cars", split="train", subset=True),
    test=dict(type="stanford_cars", root="data/stanford_cars", split="test", subset=True),
    augment=dict(_delete_=True, type="crop_flip", scale=(0.35, 1.0)),
    evaluate=dict(crop_pct=1.0),
    mix=None,
    batch_size=80,
    num_workers=0,
)
optim = dict(lr=1e-3, layer_decay=0.75, warmup=0.1)
train = dict(epochs=40, amp="none", log_interval=60, checkpoint_interval=300)
