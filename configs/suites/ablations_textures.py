"""What of the learned mask matters? The ablations of the MLO-MAE paper on the embedded textures, and a few of ours.

Command:  make suite SUITE=configs/suites/ablations_textures.py
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each, no data to download. Time: about an hour.
Not run yet. Expected: results/differences.md, where every row is compared with the MAE of its setting.

Lower steps per upper step, the solver of the hypergradient, the masking network, the size of patches, the share of
labelled and of unlabelled images, the batch of the feedback, feedback from segmentation and detection. All rows see
64,000 images, in bfloat16. Two seeds rank nothing that differs by a few points.
"""

name = "ablations"
seeds = [0, 1]
_mae = "configs/pretrain/mae_vit-w128-d4_textures.py"
_pooled = "configs/pretrain/mlomae-pooled_vit-w128-d4_textures.py"
_segmentation = "configs/pretrain/mlomae-segmentation_vit-w128-d4_textures.py"  # two objects of two classes an image
_learned = "MLO-MAE (nca, mask pooling)"
options = {"optim.theta.warmup": 0.2, "train.amp": "bf16"}
_single = {"levels.lower_steps": 1, "train.outer_iterations": 1000}
_through_theta = {"levels.mask_pooling": False}


def _labelled(count):
    return {"data.feedback": dict(type="textures", split="train", count=count)}


_few = {"data.train.count": 2000}
methods = [
    dict(method="MAE", config=_mae),
    dict(method=_learned, config=_pooled),
    dict(method="MAE, one step an iteration", config=_mae, options=_single),
    *(
        dict(
            method=f"{_learned}, {steps} lower steps an upper step",
            config=_pooled,
            options={**_single, "levels.upper_every": steps},
        )
        for steps in (1, 2, 4, 8)
    ),
    *(
        dict(
            method=f"MLO-MAE (nca), {solver}",
            config=_pooled,
            options={**_through_theta, "levels.solver": solver},
        )
        for solver in ("one_step", "finite_difference", "neumann", "cg", "unrolled")
    ),
    *(
        dict(method=f"{_learned}, {arch}", config=_pooled, options={"mask.arch": arch})
        for arch in ("mlp", "transformer", "position")
    ),
    *(
        dict(method=f"{method}, patches of {size}", config=config, options={"model.patch_size": size})
        for size in (2, 8)
        for method, config in (("MAE", _mae), (_learned, _pooled))
    ),
    *(dict(method=f"{_learned}, {count} labelled", config=_pooled, options=_labelled(count)) for count in (400, 2000)),
    dict(method="MAE, 2000 images", config=_mae, options=_few),
    dict(method=f"{_learned}, 2000 images", config=_pooled, options=_few),
    *(
        dict(
            method=f"{_learned}, feedback batches of {size}",
            config=_pooled,
            options={"data.feedback_batch_size": size},
        )
        for size in (16, 256)
    ),
    *(
        dict(method=f"MLO-MAE ({kind})", config=_segmentation, options={"feedback.type": kind})
        for kind in ("segmentation", "detection")
    ),
    dict(method="MAE, two objects", config=_mae, options={"data.train.mixed": True, "data.eval.mixed": True}),
]
