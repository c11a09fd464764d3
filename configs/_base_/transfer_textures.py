"""The embedded textures with few labels: 1,600 training images (200 per class), 2,000 test images."""

data = dict(
    train=dict(type="textures", split="train", count=1600),
    test=dict(type="textures", split="test"),
    evaluate=dict(crop_pct=1.0),  # 32 pixels as they are
)
backbone = dict(img_size=32)
train = dict(amp="none")  # the recorded results are of float32
