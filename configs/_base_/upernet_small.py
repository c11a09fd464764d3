"""UperNet with narrow heads on the small ViT (width 128, depth 4), which two CPU cores can train."""

_norm = dict(type="BN", requires_grad=True)
backbone = dict(drop_path=0.0, out_indices=[0, 1, 2, 3])
model = dict(
    neck=dict(type="Feature2Pyramid", rescales=[4, 2, 1, 0.5], norm_cfg=_norm),
    decode_head=dict(
        type="UPerHead",
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=32,
        dropout_ratio=0.1,
        norm_cfg=_norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_index=2,
        channels=32,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=_norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
    test_cfg=dict(mode="whole"),
)
optim = dict(type="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75, warmup=0.1, min_lr=0.0)
