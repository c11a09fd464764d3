"""Few labels of the embedded textures: 1,600 training images (200 a class), and the 2,000 that no pretraining saw."""

data = dict(
    train=dict(type="textures", split="train", count=1600),
    test=dict(type="textures", split="test"),
    evaluate=dict(crop_pct=1.0),  # 32 pixels as they are
)
backbone = dict(img_size=32)
