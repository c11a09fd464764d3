"""Fine-tuning on CIFAR-10 images at random places of photographs, half of the area: 4,000 labels, 7,500 test images.

Command:  make suite SUITE=configs/suites/map_50_transfers.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/..."
Hardware: 1 core of an Intel Xeon. Time: 3 processor minutes.
Expected: top-1 44.2 from MAE, 44.0 to 44.4 from masks, 49.4 from joint labels (one seed).
"""

_base_ = "../_base_/finetune.py"
name = "finetune_scenes"
_cifar10 = dict(type="cifar10", root="data")
_photographs = dict(type="tiny_imagenet", root="data/tiny-imagenet-200")
backbone = dict(img_size=64, drop_path=0.0)
data = dict(
    train=dict(
        type="on_scenes",
        objects=dict(**_cifar10, split="train"),
        scenes=dict(**_photographs, split="train"),
        share=0.5,
        count=4000,
    ),
    test=dict(
        type="on_scenes",
        objects=dict(**_cifar10, split="test"),
        scenes=dict(**_photographs, split="val"),
        share=0.5,
        count=7500,
    ),
    augment=dict(_delete_=True, type="pad_crop"),
    evaluate=dict(crop_pct=1.0),
    mix=None,
    batch_size=64,
    num_workers=0,
)
optim = dict(lr=1e-3, layer_decay=0.75, warmup=0.1)
train = dict(epochs=12, amp="bf16", log_interval=60, checkpoint_interval=300)
