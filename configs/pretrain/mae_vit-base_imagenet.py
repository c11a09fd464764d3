"""MAE ViT-B/16 on ImageNet-1K, 800 passes over 80 % of train: the MAE paper's recipe (base rate 1.5e-4, batch 4096).

Command:  torchrun --nproc-per-node 8 -m mlomae.cli pretrain configs/pretrain/mae_vit-base_imagenet.py --data ROOT
Hardware: 8 GPUs of 80 GB. Estimated by `mlomae plan` with --processes 8 --device h100, not measured:
Memory:   at most 8.88 GB at once of each GPU, beside what CUDA needs; of loading at most 1.44 GB a process,
          11.49 GB in all.
Time:     4.1 h at 40% of the peak, which is an assumption, if loading gives 55,405 images/s.
Expected: not measured by us. Published (mmpretrain, 800 epochs of all images): linear probe 65.1, fine-tuning 83.3.
"""

_base_ = ["../_base_/vit-base_224px.py", "../_base_/imagenet.py", "../_base_/mae.py"]
name = "mae_vit-base_imagenet"
method = "MAE"
# two MAE steps of 4096 images an outer iteration, 125 a pass
optim = dict(theta=dict(lr=2.4e-3, weight_decay=0.05, warmup=0.05))
train = dict(
    outer_iterations=100_000, amp="bf16", accumulate=4, log_interval=100, picture_interval=2500, checkpoint_interval=500
)
