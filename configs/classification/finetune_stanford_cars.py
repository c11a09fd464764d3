"""Fine-tuning on Stanford Cars, 196 makes and models.

Command:  make bench-cls CONFIG=configs/classification/finetune_stanford_cars.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 1 GPU of 16 GB, about 1.5 hours for ViT-B. Not run here.
Expected: none published for MAE with this recipe.
"""

_base_ = "../_base_/finetune.py"
name = "finetune_stanford_cars"
data = dict(
    train=dict(type="stanford_cars", root="data/stanford_cars", split="train"),
    test=dict(type="stanford_cars", root="data/stanford_cars", split="test"),
    batch_size=128,
    num_workers=8,
)
optim = dict(lr=1e-3, layer_decay=0.75, warmup=0.1)
