"""MAE's linear head on frozen features, for ImageNet: LARS at a batch of 16,384 (0.1 per 256 images), after BatchNorm.

Source: facebookresearch/mae, FINETUNE.md and main_linprobe.py. Features: the class token. Augmentation: crops and flips
only.
"""

protocol = "linear"
pooling = "cls"
backbone = dict(img_size=224, global_pool="token")
data = dict(augment=dict(type="crop_flip"), evaluate=dict(crop_pct=0.875), batch_size=16384, num_workers=10)
optim = dict(type="lars", lr=6.4, weight_decay=0.0, warmup=0.11, min_lr=0.0)
train = dict(epochs=90, amp="bf16", log_interval=20, checkpoint_interval=500)
