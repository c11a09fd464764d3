"""Fine-tuning on CUB-200-2011, 200 birds.

Command:  make bench-cls CONFIG=configs/classification/finetune_cub200.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 1 GPU of 16 GB, about 1 hour for ViT-B. Not run here.
Expected: none published for MAE with this recipe.
"""

_base_ = "../_base_/finetune.py"
name = "finetune_cub200"
data = dict(
    train=dict(type="cub200", root="data/cub200", split="train"),
    test=dict(type="cub200", root="data/cub200", split="test"),
    batch_size=128,
    num_workers=8,
)
optim = dict(lr=1e-3, layer_decay=0.75, warmup=0.1)
