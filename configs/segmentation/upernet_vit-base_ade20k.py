"""UperNet with ViT-B on ADE20K: 512x512, 160,000 iterations of 16 images, with MAE's recipe.

Command:  torchrun --nproc-per-node=8 -m mlomae.cli bench segmentation configs/segmentation/upernet_vit-base_ade20k.py
          --weights path/to/backbone --data path/to/ADEChallengeData2016
Hardware: 8 GPUs of 32 GB, 2 images each (bf16). Hours: not measured here.
Expected: 48.15 mIoU for MAE pretrained 1,600 epochs, as reproduced by implus/mae_segmentation (with relative
positions, unlike this backbone); not measured here.
"""

_base_ = "../_base_/upernet.py"
name = "upernet_vit-base_ade20k"
data = dict(
    train=dict(type="ade20k", root="data/ADEChallengeData2016", split="training"),
    test=dict(type="ade20k", root="data/ADEChallengeData2016", split="validation"),
)
