"""k-NN (k = 20, cosine) on the embedded textures with 1,600 labels, patch tokens averaged; one of `make bench-cls`.

Command:  make bench-cls
          make bench-cls CONFIG=configs/classification/knn_textures.py CKPT=path/to/checkpoint
Hardware: 1 core of an AMD EPYC, no data to download. Time: 16 processor seconds for a ViT of width 128 and depth 4.
Expected: top-1 41.6 from MAE, 72.0 from MLO-MAE (nca, mask pooling), 33.9 from random weights (one seed each, 64,000
images of pretraining, chance 12.5 %; the sampling error of 2,000 test images is 2.2 points or less, 95 %).
"""

_base_ = "../_base_/transfer_textures.py"
name = "knn_textures"
protocol = "knn"
