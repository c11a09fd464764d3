"""What costs the same as a learned mask? Random masks in other forms, and labels used without a mask; the map's middle.

Command:  make suite SUITE=configs/suites/map_50_rivals.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/..."
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Not run yet.
Expected: results/differences.md.

Decoder depth (1 is MAE's here), cells of patches, ratio (0.75 is MAE's), a classification loss beside reconstruction;
training for longer is "MAE, same processor time" of map_50.py, whose records this suite shares. All see the same
images.
"""

_base_ = "map_50.py"
seeds = [0, 1, 2]
_mae = "configs/pretrain/mae_vit-w128-d4_cifar10-on-scenes.py"
methods = [
    dict(method="MAE", config=_mae),
    *(dict(method=f"MAE, decoder depth {n}", config=_mae, options={"model.decoder_depth": n}) for n in (2, 4)),
    *(
        dict(method=f"MAE, cells of {n} patches", config=_mae, options={"mask.type": "simmim", "mask.cell": n})
        for n in (2, 4)
    ),
    *(dict(method=f"MAE, ratio {r}", config=_mae, options={"mask.ratio": r}) for r in (0.5, 0.6, 0.9)),
    dict(
        method="MAE (joint classification)",
        config=_mae,
        options={"auxiliary": dict(type="classification", weight=0.1)},
    ),
]
same_time = None
