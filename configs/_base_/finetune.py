"""MAE's fine-tuning recipe for ViT-B on ImageNet, at a batch of 1,024 (learning rate 5e-4 per 256 images).

Source: facebookresearch/mae, FINETUNE.md. Every backbone of a table gets the same recipe; only lr and length depend on
the data set.
"""

protocol = "finetune"
backbone = dict(img_size=224, drop_path=0.1, global_pool="avg")
data = dict(
    augment=dict(type="rand_augment", auto_augment="rand-m9-mstd0.5-inc1", reprob=0.25),
    evaluate=dict(crop_pct=0.875),
    mix=dict(mixup=0.8, cutmix=1.0),
    batch_size=1024,
    num_workers=10,
)
optim = dict(type="adamw", lr=2e-3, weight_decay=0.05, layer_decay=0.65, warmup=0.05, min_lr=1e-6)
train = dict(epochs=100, amp="bf16", label_smoothing=0.1, log_interval=50, checkpoint_interval=1000)
