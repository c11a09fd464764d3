"""Is MAE's accuracy on CIFAR-10 the same in bfloat16? (On the textures: configs/suites/textures_warmup.py.)

Command:  make suite SUITE=configs/suites/precision.py DATA=cifar10=path/to/cifar10
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Time: about 25 minutes.
Expected: results/pretrain.md.

Records of MAE are shared with configs/suites/cifar10.py; its seeds 0 to 2 there are of another machine and version, and
were run again as "precision_mae".
"""

name = "cifar10"
seeds = [0, 1, 2, 3, 4]
_mae = "configs/pretrain/mae_vit-w128-d4_cifar10.py"
methods = [
    dict(method="MAE", config=_mae),
    dict(method="MAE, bf16", config=_mae, options={"train.amp": "bf16"}),
]
