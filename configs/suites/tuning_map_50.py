"""Do the rows keep their order when each has its rates tuned with the same effort? Six random draws each, map's middle.

Command:  make suite SUITE=configs/suites/tuning_map_50.py DATA="cifar10=path/to/cifar10 tiny_imagenet=path/to/..."
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Not run yet.
Expected: results/figures/tuning.png, accuracy against the number of draws.

Trained on four fifths of the training images, judged on the others: no evaluation image is read, nor a photograph of
the evaluation. The learning rate of θ is drawn log-uniformly from 5e-4 to 8e-3, the same draws for every row, and with
it the rate that is a row's own: the mask ratio (0.5 to 0.9), the weight in the middle (2 to 10), the learning rate of φ
(1e-3 to 1e-2), the weight of the classification loss (0.03 to 3); the last three log-uniformly.
"""

name = "tuning_50"
seeds = [0]


def _part(part):
    def of(**source):
        return dict(type="part", of=dict(split="train", root="data", **source), part=part)

    return dict(
        type="on_scenes", objects=of(type="cifar10"), scenes=of(type="tiny_imagenet"), share=0.5, count=_COUNT[part]
    )


_COUNT = {"train": 20_000, "held_out": 7_500}
options = {"data.train": _part("train"), "data.eval": _part("held_out"), "train.amp": "bf16"}
_mae = "configs/pretrain/mae_vit-w128-d4_cifar10-on-scenes.py"
_learned = "configs/pretrain/mlomae-pooled_vit-w128-d4_cifar10-on-scenes.py"
_theta = [0.0029, 0.00056, 0.0048, 0.0027, 0.0023, 0.0048]
_own = {
    "MAE": (_mae, {}, "mask.ratio", [0.61, 0.51, 0.87, 0.79, 0.87, 0.5]),
    "centre": (_mae, {"mask.type": "position"}, "mask.weight", [8.4, 3.6, 3.4, 3.4, 8.4, 5.5]),
    "MLO-MAE (nca, mask pooling)": (
        _learned,
        {},
        "optim.phi.lr",
        [0.0011, 0.0015, 0.0035, 0.0026, 0.0013, 0.0044],
    ),
    "MAE (joint classification)": (
        _mae,
        {"auxiliary.type": "classification"},
        "auxiliary.weight",
        [0.18, 2.7, 0.6, 0.18, 0.83, 0.13],
    ),
}
methods = [
    dict(
        method=f"{name}, draw {k + 1}",
        config=config,
        options={**same, "optim.theta.lr": lr, key: value},
    )
    for name, (config, same, key, values) in _own.items()
    for k, (lr, value) in enumerate(zip(_theta, values, strict=True))
]
