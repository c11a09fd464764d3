"""Fine-tuning on Oxford Flowers, 102 classes; trained on train and validation part together.

Command:  make bench-cls CONFIG=configs/classification/finetune_flowers102.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 1 GPU of 16 GB, about half an hour for ViT-B. Not run here.
Expected: none published for MAE with this recipe.
"""

_base_ = "../_base_/finetune.py"
name = "finetune_flowers102"
data = dict(
    train=dict(type="flowers102", root="data/flowers102", split="trainval"),
    test=dict(type="flowers102", root="data/flowers102", split="test"),
    batch_size=128,
    num_workers=8,
)
optim = dict(lr=1e-3, layer_decay=0.75, warmup=0.1)
