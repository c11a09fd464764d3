"""ImageNet-1K in the usual folders: train/WNID/*.JPEG and val/WNID/*.JPEG.

The upper level takes 20 % of train/. The val folder is for evaluation only: the authors' released code trains its
upper level on it and reports accuracy on it; this configuration cannot (a shared folder is refused).
"""

data = dict(
    train=dict(type="imagefolder", root="data/imagenet", split="train"),
    eval=dict(type="imagefolder", root="data/imagenet", split="val"),
    batch_size=4096,
    feedback_batch_size=1024,
    num_workers=12,
    probe_limit=130_000,
)
