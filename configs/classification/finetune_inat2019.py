"""Fine-tuning on iNaturalist 2019, 1,010 species; test labels are not public, so accuracy is on the validation part.

Command:  make bench-cls CONFIG=configs/classification/finetune_inat2019.py CKPT=path/to/backbone DATA=path/to/data
Hardware: 8 GPUs of 16 GB, about 2 days for ViT-B. Not run here.
Expected: 80.5 for MAE ViT-B (He et al. 2022, recipe not published).
"""

_base_ = "../_base_/finetune.py"
name = "finetune_inat2019"
data = dict(
    train=dict(type="inat2019", root="data/inat2019", split="train"),
    test=dict(type="inat2019", root="data/inat2019", split="val"),
    augment=dict(reprob=0.1),
    batch_size=768,
    num_workers=10,
)
optim = dict(lr=1.125e-3, layer_decay=0.75, warmup=0.05)
train = dict(epochs=100)
