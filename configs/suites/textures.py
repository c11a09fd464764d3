"""How much of the oracle's headroom does a learned mask capture on the embedded textures?

Command:  make suite
Hardware: 2 cores of an AMD EPYC, two runs at a time with one thread each, no data to download. Time: about 45 minutes.
Expected: results/headroom.md.

All rows see the same 64,000 images in the same order (500 outer iterations of 2 x 64). The rows without mask pooling
(linear as published, with the changes of configs/_base_/mlomae.py; ridge and nca) and those with it get the same
labelled images; "frozen" keeps the masking network at its random initial values, the control of every learned row.
Five seeds of the rows that answer the question, two of the rest.
"""

name = "textures"
seeds = [0, 1]
_five = [0, 1, 2, 3, 4]
_mae = "configs/pretrain/mae_vit-w128-d4_textures.py"
_oracle = "configs/pretrain/oracle_vit-w128-d4_textures.py"
_linear = "configs/pretrain/mlomae_vit-w128-d4_textures.py"
_pooled = "configs/pretrain/mlomae-pooled_vit-w128-d4_textures.py"
_through_theta = {"levels.solver": "one_step", "levels.mask_pooling": False}
methods = [
    dict(method="MAE", config=_mae, seeds=_five),
    dict(method="MLO-MAE (nca, mask pooling)", config=_pooled, seeds=_five),
    dict(method="oracle, weight 5", config=_oracle, options={"mask.weight": 5.0}, seeds=_five),
    dict(method="MLO-MAE (linear)", config=_linear),
    dict(
        method="frozen at random",
        config=_pooled,
        options={"optim.phi.lr": 0.0, "optim.phi.weight_decay": 0.0},
        seeds=_five,
    ),
    dict(method="MLO-MAE (nca)", config=_pooled, options=_through_theta),
    dict(method="MLO-MAE (ridge)", config=_pooled, options={**_through_theta, "feedback.type": "ridge"}),
    dict(method="oracle, weight 20", config=_oracle, options={"mask.weight": 20.0}),
    dict(method="oracle, weight 5, bias 1", config=_oracle, options={"mask.weight": 5.0, "mask.bias": 1.0}),
    dict(method="oracle, weight 5, bias minus 1", config=_oracle, options={"mask.weight": 5.0, "mask.bias": -1.0}),
]
same_time = "MLO-MAE (nca, mask pooling)"
