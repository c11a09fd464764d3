"""Where does looking at the image pay? Objects that cover half of a cluttered photograph: the middle of the map.

Command:  make suite SUITE=configs/suites/map_50.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/tiny-imagenet"
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Time: half an hour a seed. Not run: seeds 2
and 4 of the region and the centre.
Expected: results/headroom_parts.md. map_25.py and map_75.py are the same with another share.

CIFAR-10 images at random places of Tiny-ImageNet's photographs. The oracle knows the object of every image; its
controls share all with it but what they know: the object of another image, which knows where objects tend to be, and
the object's shape anywhere. "centre" weights the middle of every image and looks at nothing. In bfloat16, which takes
half the time (accuracy: configs/suites/textures_warmup.py and precision.py).
"""

name = "map_50"
seeds = [0, 1, 2, 3, 4]
_mae = "configs/pretrain/mae_vit-w128-d4_cifar10-on-scenes.py"
_oracle = {"mask.type": "oracle", "mask.weight": 5.0}
options = {"data.train.share": 0.5, "data.eval.share": 0.5, "train.amp": "bf16"}
methods = [
    dict(method="MAE", config=_mae),
    dict(method="oracle, weight 5", config=_mae, options=_oracle),
    dict(method="other images' objects", config=_mae, options={**_oracle, "mask.patches": "shuffled"}),
    dict(method="region anywhere", config=_mae, options={**_oracle, "mask.patches": "region"}),
    dict(method="centre, weight 5", config=_mae, options={"mask.type": "position", "mask.weight": 5.0}),
    dict(
        method="MLO-MAE (nca, mask pooling)",
        config="configs/pretrain/mlomae-pooled_vit-w128-d4_cifar10-on-scenes.py",
    ),
]
same_time = "MLO-MAE (nca, mask pooling)"
