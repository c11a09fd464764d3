"""ViT-B/16 at 224 pixels with MAE's decoder (512 wide, 8 blocks), as in the MAE and MLO-MAE papers."""

model = dict(size="base", img_size=224, patch_size=16, decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=16)
