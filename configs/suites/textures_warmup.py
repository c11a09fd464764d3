"""Does the learned weight still gain on the embedded textures if θ warms up for a fifth of the run in place of 5 %?

Command:  make suite SUITE=configs/suites/textures_warmup.py
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each, no data to download. Time: about two hours.
Expected: results/headroom.md and results/differences.md.

Rows and images of configs/suites/textures.py, with two controls of the oracle: the object of another image, which knows
where objects tend to be, and its shape anywhere. "centre" weights the middle of every image. 20 % was chosen for MAE,
on other images and with seeds 1 to 5 of the demo's setting. "MAE, bf16" computes in bfloat16 and shows what that does
to the accuracy. Ten seeds, since this is the one gain that the project's first page claims. Run so far: MAE, the
learned mask and the oracle with ten, the controls with three, MAE of the same time with seeds 5 to 9, "centre" with
none.
"""

name = "textures-warmup"
seeds = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
_mae = "configs/pretrain/mae_vit-w128-d4_textures.py"
_oracle = "configs/pretrain/oracle_vit-w128-d4_textures.py"
options = {"optim.theta.warmup": 0.2}
methods = [
    dict(method="MAE", config=_mae),
    dict(method="MLO-MAE (nca, mask pooling)", config="configs/pretrain/mlomae-pooled_vit-w128-d4_textures.py"),
    dict(method="oracle, weight 5", config=_oracle, options={"mask.weight": 5.0}),
    dict(method="other images' objects", config=_oracle, options={"mask.weight": 5.0, "mask.patches": "shuffled"}),
    dict(method="region anywhere", config=_oracle, options={"mask.weight": 5.0, "mask.patches": "region"}),
    dict(
        method="centre, weight 5",
        config=_mae,
        options={"mask.type": "position", "mask.weight": 5.0},
        seeds=[0, 1, 2],
    ),
    dict(method="MAE, bf16", config=_mae, options={"train.amp": "bf16"}, seeds=[0, 1, 2, 3, 4]),
]
same_time = "MLO-MAE (nca, mask pooling)"
