"""What costs the same as a learned mask on CIFAR-10? Random masks in other forms, a weight by position, joint labels.

Command:  make suite SUITE=configs/suites/cifar10_rivals.py DATA=cifar10=path/to/cifar10
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Not run yet.
Expected: results/differences.md.

The rivals of map_50_rivals.py where the object fills the picture: decoder depth (1 is MAE's here), cells of patches,
ratio (0.75 is MAE's), a classification loss beside reconstruction. All see the same images; records are shared with
configs/suites/cifar10.py, where the learned mask and MAE of its time are.
"""

name = "cifar10"
seeds = [0, 1, 2]
_mae = "configs/pretrain/mae_vit-w128-d4_cifar10.py"
methods = [
    dict(method="MAE", config=_mae),
    *(dict(method=f"MAE, decoder depth {n}", config=_mae, options={"model.decoder_depth": n}) for n in (2, 4)),
    *(
        dict(method=f"MAE, cells of {n} patches", config=_mae, options={"mask.type": "simmim", "mask.cell": n})
        for n in (2, 4)
    ),
    *(dict(method=f"MAE, ratio {r}", config=_mae, options={"mask.ratio": r}) for r in (0.5, 0.6, 0.9)),
    dict(config="configs/pretrain/position_vit-w128-d4_cifar10.py"),
    dict(config="configs/pretrain/mae-joint-labels_vit-w128-d4_cifar10.py"),
]
