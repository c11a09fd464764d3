"""Does a learned mask earn its cost at ViT-Tiny on CIFAR-10? The suite of `make gpu-evidence`, on one GPU.

Command:  make gpu-evidence DATA=path/to/cifar10
Hardware: 1 GPU of 80 GB or more, one run at a time. Not measured yet: `make gpu-evidence` chooses the length.
Expected: a table of four rows in the archive that it writes.

All rows see the same images, but for MAE of the same processor time. Rates are those of the recipes for ViTs of width
128, and were not tuned.
"""

name = "gpu-cifar10"
seeds = [0, 1, 2, 3, 4]
_at = "configs/pretrain/{}_vit-w128-d4_cifar10.py".format
options = {
    "model.embed_dim": 192,
    "model.depth": 12,
    "model.num_heads": 3,
    "model.decoder_embed_dim": 96,
    "model.decoder_depth": 2,
    "data.batch_size": 512,
    "data.probe_limit": 20_000,
    "train.amp": "auto",
    "optim.theta.warmup": 0.1,
}
methods = [
    dict(method="MAE", config=_at("mae")),
    dict(method="MLO-MAE (nca, mask pooling)", config=_at("mlomae-pooled")),
    dict(method="MAE (joint classification)", config=_at("mae-joint-labels")),
]
same_time = "MLO-MAE (nca, mask pooling)"
threads = None
