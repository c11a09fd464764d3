"""Linear segmentation on the last block of the small ViT (width 128, depth 4), frozen."""

backbone = dict(out_indices=[3])
optim = dict(type="adamw", lr=1e-2, weight_decay=0.0, warmup=0.1, min_lr=0.0)
