"""A valid record to vary."""

from typing import Any

from mlomae.records import config_hash, strip_paths

CONFIG = {
    "name": "run",
    "seed": 0,
    "model": {"size": "tiny", "depth": None},
    "data": {"train": {"type": "cifar10", "root": "/home/someone/data/cifar10"}, "num_workers": 2, "val_fraction": 0.2},
    "init_from": "/scratch/weights/mae.pth",
}


def make_record(**changes: Any) -> dict[str, Any]:
    config = strip_paths(changes.pop("config", CONFIG))
    record = {
        "schema": 1,
        "name": "mae_tiny",
        "method": "MAE",
        "task": "pretrain",
        "dataset": "cifar10",
        "demo": False,
        "seed": 0,
        "config": config,
        "config_hash": config_hash(config),
        "git_commit": "a" * 40,
        "git_dirty": False,
        "versions": {"torch": "2.14.1"},
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "threads": 1, "gpu": None},
        "images_seen": {"lower": 1000, "head": 0, "upper": 0},
        "outer_iterations": 10,
        "wall_clock_s": 12.5,
        "cpu_s": 20,
        "split_hash": None,
        "train_source": "cifar10 train, 50,000 images",
        "eval_source": "cifar10 test / 10,000 images",
        "metrics": {"knn_top1_cls": 40.0, "linear_top1_cls": 50.0},
        "finished_at": "2026-11-21T03:00:00+00:00",
    }
    return {**record, **changes}
