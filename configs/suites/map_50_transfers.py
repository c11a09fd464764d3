"""Does a gain of frozen features survive training? Transfers of five backbones on the map's middle.

Command:  mlomae data write configs/pretrain/mae_vit-w128-d4_cifar10-on-scenes.py work_dirs/data/scenes_50 \
              --cfg-options data.train.share=0.5 data.eval.share=0.5 data.train.count=4000 data.eval.count=1000
          make suite SUITE=configs/suites/map_50_transfers.py DATA="cifar10=... tiny_imagenet=...
              scene_folder=work_dirs/data/scenes_50/scenes coco_folder=work_dirs/data/scenes_50/coco"
Hardware: 2 cores of an Intel Xeon, two runs at a time, one thread each. Time: 40 minutes a seed, pretraining included.
Run with seed 0, but for random weights.
Expected: results/classification.md, segmentation.md, detection.md.

Fine-tuning, an attentive probe, UperNet and Mask R-CNN on other images like those of pretraining, with few labels. The
pretrainings are those of map_50.py.
"""

_base_ = "map_50.py"
seeds = [0, 1, 2]
_mae = "configs/pretrain/mae_vit-w128-d4_cifar10-on-scenes.py"
methods = [
    dict(method="MAE", config=_mae),
    dict(method="oracle, weight 5", config=_mae, options={"mask.type": "oracle", "mask.weight": 5.0}),
    dict(method="centre, weight 5", config=_mae, options={"mask.type": "position", "mask.weight": 5.0}),
    dict(
        method="MLO-MAE (nca, mask pooling)",
        config="configs/pretrain/mlomae-pooled_vit-w128-d4_cifar10-on-scenes.py",
    ),
    dict(
        method="MAE (joint classification)",
        config=_mae,
        options={"auxiliary": dict(type="classification", weight=0.1)},
    ),
]
same_time = None
floor = True
tasks = [
    dict(recipe="configs/classification/finetune_scenes.py"),
    dict(recipe="configs/classification/attentive_scenes.py"),
    dict(recipe="configs/segmentation/upernet_scenes.py"),
    dict(recipe="configs/detection/mask_rcnn_scenes.py"),
]
