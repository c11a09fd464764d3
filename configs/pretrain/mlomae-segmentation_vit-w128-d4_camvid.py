"""MLO-MAE whose feedback is semantic segmentation on CamVid: 367 street scenes, 11 classes, at 64 pixels.

Command:  make pretrain CONFIG=configs/pretrain/mlomae-segmentation_vit-w128-d4_camvid.py DATA=path/to/camvid
Then:     make bench-seg CONFIG=configs/segmentation/upernet_camvid_small.py CKPT=... DATA=path/to/camvid
Hardware: 1 CPU core of an AMD EPYC. Time: 6 processor minutes. Expected: the head names 70 % of the pixels (one seed).
Scenes have no image labels, so there is no k-NN: the transfer is the evaluation. To pretrain on images of another
source with this feedback: data.train=dict(type="cifar10", ...) and data.feedback=dict(type="camvid", ...).
"""

_base_ = ["../_base_/vit-w128-d4_64px.py", "../_base_/mlomae.py"]
name = "mlomae-segmentation_vit-w128-d4_camvid"
method = "MLO-MAE (segmentation)"
feedback = dict(_delete_=True, type="segmentation")
data = dict(
    train=dict(type="camvid", root="data/camvid", split="training"),
    eval=None,
    batch_size=64,
    feedback_batch_size=32,
    num_workers=2,
)
optim = dict(theta=dict(lr=1e-3), omega=dict(lr=3e-3), phi=dict(lr=5e-4))
train = dict(outer_iterations=400, log_interval=50, picture_interval=200, checkpoint_interval=100)
