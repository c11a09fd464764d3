"""The first part of `mlomae demo`: MAE and MLO-MAE pretrained in minutes on embedded data, and their table.

Finished runs are not repeated, interrupted ones are resumed.
"""

from pathlib import Path

import pandas as pd

from mlomae.common.checkpoint import list_checkpoints
from mlomae.config.schema import load_config
from mlomae.pretraining.run import run_pretraining
from mlomae.records import Record

ITERATIONS = 300  # outer iterations of MLO-MAE: with the transfers the demo stays below twenty minutes on two cores
METRICS = {"k-NN %": "knn_top1_avg", "linear probe %": "linear_top1_avg"}


def pretrain_demo(work_dir: Path, iterations: int = ITERATIONS) -> list[Path]:
    """Pretrain, print the table; the last checkpoints of MAE for the same images, MAE for the same wall-clock, MLO-MAE.

    The table has images seen, seconds, and accuracies of the frozen encoder on held-out images. The length of the
    second is measured: as many MAE iterations as fit the wall-clock that MLO-MAE took.
    """
    mlo = _pretrain(1, "mlomae-pooled", "MLO-MAE", iterations, work_dir / "mlo-mae")
    mae = _pretrain(2, "mae", "MAE, same images", iterations, work_dir / "mae_same-images")
    longer = max(1, round(iterations * mlo[1]["wall_clock_s"] / mae[1]["wall_clock_s"]))
    name = f"mae_same-wall-clock_{longer}"
    runs = [mae, _pretrain(3, "mae", "MAE, same wall-clock", longer, work_dir / name), mlo]
    rows = [
        {
            "pretraining": record["method"],
            "images seen": record["images_seen"]["lower"],
            "s": round(record["wall_clock_s"]),
            **{title: f"{record['metrics'][name]:.1f}" for title, name in METRICS.items()},
        }
        for _, record in runs
    ]
    print(f"\n{pd.DataFrame(rows).to_string(index=False)}")
    return [list_checkpoints(folder)[-1] for folder, _ in runs]


def _pretrain(number: int, kind: str, method: str, iterations: int, folder: Path) -> tuple[Path, Record]:
    print(f"\n[{number}/3] Pretraining of {method}: {iterations} outer iterations", flush=True)
    changes = {"name": f"demo_{folder.name}", "method": method, "demo": True, "data.probe_limit": 5000}
    lengths = {"train.outer_iterations": iterations, "train.log_interval": 25}
    config = load_config(f"configs/pretrain/{kind}_vit-w128-d4_textures.py", {**changes, **lengths})
    return folder, run_pretraining(config, folder, resume=True)
