"""How much to mask? Accuracy against mask ratio on the embedded textures, random and learned masks.

Command:  make suite SUITE=configs/suites/mask_ratio.py
Hardware: 2 cores of an AMD EPYC, two runs at a time with one thread each, no data to download. Time: about 25 minutes.
Expected: results/figures/mask_ratio.png.

The ratio 0.75 is that of configs/suites/textures.py, which has the same configurations under their own names.
"""

name = "ratio"
seeds = [0, 1]
_config = "configs/pretrain/{}_vit-w128-d4_textures.py".format
_methods = {"MAE": "mae", "MLO-MAE (nca, mask pooling)": "mlomae-pooled"}
methods = [
    dict(method=f"{method}, ratio {ratio}", config=_config(config), options={"mask.ratio": ratio})
    for method, config in _methods.items()
    for ratio in (0.4, 0.6, 0.85)
]
