"""UperNet with ViT-L on ADE20K: 512x512, 160,000 iterations of 16 images, wider heads and more drop path than ViT-B.

Command:  torchrun --nproc-per-node=8 -m mlomae.cli bench segmentation configs/segmentation/upernet_vit-large_ade20k.py
          --weights path/to/backbone --data path/to/ADEChallengeData2016
Hardware: 8 GPUs of 40 GB, 2 images each (bf16; backbone.with_cp=True saves memory). Hours: not measured here.
Expected: 53.6 mIoU for MAE (He et al. 2022, table 5); not measured here.
"""

_base_ = "../_base_/upernet.py"
name = "upernet_vit-large_ade20k"
backbone = dict(drop_path=0.2, out_indices=[7, 11, 15, 23])
data = dict(
    train=dict(type="ade20k", root="data/ADEChallengeData2016", split="training"),
    test=dict(type="ade20k", root="data/ADEChallengeData2016", split="validation"),
)
model = dict(decode_head=dict(channels=1024))
optim = dict(layer_decay=0.75)
