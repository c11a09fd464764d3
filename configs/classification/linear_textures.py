"""Linear head (SGD) on the embedded textures with 1,600 labels, patch tokens averaged; one of `make bench-cls`.

Command:  make bench-cls
          make bench-cls CONFIG=configs/classification/linear_textures.py CKPT=path/to/checkpoint
Hardware: 1 core of an AMD EPYC, no data to download. Time: 17 processor seconds for a ViT of width 128 and depth 4.
Expected: top-1 79.8 from MAE, 87.2 from MLO-MAE (nca, mask pooling), 73.2 from random weights (one seed each, 64,000
images of pretraining, chance 12.5 %; the sampling error of 2,000 test images is 2.0 points or less, 95 %).
"""

_base_ = "../_base_/transfer_textures.py"
name = "linear_textures"
protocol = "linear"
data = dict(batch_size=200)  # no augmentation: features are computed once
optim = dict(type="sgd", lr=1.0, weight_decay=0.0, warmup=0.1, min_lr=0.0)
train = dict(epochs=50, checkpoint_interval=400, keep_checkpoints=1)
