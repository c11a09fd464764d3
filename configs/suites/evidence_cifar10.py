"""Does a learned mask earn its cost on real images? Small ViTs pretrained on CIFAR-10, transferred to four data sets.

Command:  make suite SUITE=configs/suites/evidence_cifar10.py
          DATA="cifar10=... cub200=... stanford_cars=... camvid=... coco=..."
Hardware: 2 cores of an AMD EPYC, two runs at a time with one thread each. Time: about 6 hours.
Expected: results/README.md. No mask differs from random masks by more than seeds differ from one another.

Every pretraining is probed on CIFAR-10 (k-NN, linear). Three seeds of the rows that answer the question; one
seed of the other baselines and controls, which cannot rank them; these are not fine-tuned on CUB or COCO. MLO-MAE with
the paper's linear feedback, the reference of BLO-MAE, is only probed. The data are parts of the published sets, so
numbers compare with each other but not with published ones.
"""

name = "cifar10"
seeds = [0, 1, 2]
_at = "configs/pretrain/{}_vit-w128-d4_cifar10.py".format
_learned = "MLO-MAE (nca, mask pooling)"
methods = [
    dict(config=_at("mae")),
    dict(config=_at("mlomae-pooled")),
    dict(config=_at("blo-mae")),
    dict(config=_at("mlomae")),
    *(dict(config=_at(name), seeds=[0]) for name in ("amt", "hpm", "semmae", "shuffled-labels", "frozen")),
]
_baselines = ["AMT", "HPM", "SemMAE (clusters)", "MLO-MAE (nca, mask pooling, shuffled labels)", "frozen at random"]
same_time = _learned
floor = True
_compared = ["MAE", "MAE, same processor time", _learned, "BLO-MAE", "random initialisation"]
tasks = [
    dict(recipe="configs/classification/linear_{dataset}_small.py", datasets=["cub200", "stanford_cars"]),
    dict(recipe="configs/classification/finetune_cub200_small.py", methods=_compared),
    dict(recipe="configs/segmentation/upernet_camvid_small.py", methods=_compared + _baselines),
    dict(recipe="configs/detection/mask_rcnn_coco_small.py", methods=_compared),
]
