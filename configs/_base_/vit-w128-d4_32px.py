"""Small ViT for 32-pixel images that two CPU cores can train: width 128, depth 4, 64 patches of 4 pixels."""

model = dict(
    size="tiny",
    img_size=32,
    patch_size=4,
    embed_dim=128,
    depth=4,
    num_heads=4,
    decoder_embed_dim=64,
    decoder_depth=1,
    decoder_num_heads=2,
)
train = dict(amp="none")  # the recorded results are of float32
