"""UperNet on a plain ViT, with MAE's recipe for ADE20K: 512x512 crops, 160,000 iterations of 16 images.

Source: implus/mae_segmentation (configs/mae) and its mmsegmentation 1.x ports. Differences: absolute positions
only (no relative bias, no layer scale: the backbone is the ViT that was pretrained), bf16 instead of fp16.
"""

backbone = dict(img_size=512, drop_path=0.1, out_indices=[3, 5, 7, 11])
data = dict(
    augment=[
        dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
    ],
    evaluate=[dict(type="Resize", scale=(2048, 512), keep_ratio=True)],
    batch_size=16,
    num_workers=4,
)
model = dict(
    neck=dict(type="Feature2Pyramid", rescales=[4, 2, 1, 0.5]),
    decode_head=dict(
        type="UPerHead",
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=768,
        dropout_ratio=0.1,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
optim = dict(type="adamw", lr=1e-4, weight_decay=0.05, layer_decay=0.65, warmup=1500 / 160_000, min_lr=0.0)
train = dict(iterations=160_000, decay="linear", amp="bf16", log_interval=50, checkpoint_interval=4000)
