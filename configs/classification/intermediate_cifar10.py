"""Supervised intermediate fine-tuning on CIFAR-10: a control that shows MAE the labels before the transfer.

Command:  make bench-cls CONFIG=configs/classification/intermediate_cifar10.py CKPT=path/to/backbone DATA=path/to/data
Then:     make bench-cls CONFIG=... CKPT=work_dirs/intermediate_cifar10_mae_seed0/checkpoints/iter_390.pth DATA=...
Hardware: 1 CPU core of an AMD EPYC. Time: 11 processor minutes. Expected: top-1 59.4 (one seed).

The question: does feedback from labels gain more than training on the labels? Two epochs see 99,840 images, half as
many as the pretraining of configs/pretrain/*_vit-w128-d4_cifar10.py, with the labels of the training images that MLO-
MAE's feedback reads. The row is called "MAE + fine-tuned on cifar10 (labels)"; a transfer that would test on images
whose labels it has seen is refused.
"""

_base_ = "finetune_cifar10.py"
name = "intermediate_cifar10"
backbone = dict(drop_path=0.0)
data = dict(augment=dict(_delete_=True, type="pad_crop"), mix=None, num_workers=0)
train = dict(epochs=2, label_smoothing=0.1, checkpoint_interval=100)
