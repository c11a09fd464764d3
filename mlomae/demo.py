"""``make demo``: the main job in small, on embedded data: MLO-MAE, MAE for the same images, MAE for the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlomae.config import load_config
from mlomae.errors import ConfigError
from mlomae.pretrain import run_pretraining

CONFIGS = Path(__file__).parent.parent / "configs" / "pretrain"
ITERATIONS = 300  # outer iterations of MLO-MAE: the whole demo stays below ten minutes on two cores


def run_demo(work_dir: Path, iterations: int = ITERATIONS) -> pd.DataFrame:
    """Run the three rows, print the table and the paths; a row that is finished or interrupted is continued.

    The third row's length is measured: as many MAE iterations as fit the wall-clock that MLO-MAE took.
    Raises ConfigError where the configurations are not beside the package (not an editable install).
    """
    if not CONFIGS.is_dir():
        raise ConfigError(f"the demo needs the configs of a source checkout ('{CONFIGS}' is missing); run `make demo`")
    mlo = _row(1, "mlomae-pooled", "MLO-MAE", iterations, work_dir)
    mae = _row(2, "mae", "MAE, same images", iterations, work_dir)
    ratio = mlo["wall_clock_s"] / mae["wall_clock_s"]
    equal_time = _row(3, "mae", "MAE, same wall-clock", max(1, round(iterations * ratio)), work_dir)
    rows = [_summary(record) for record in (mae, equal_time, mlo)]
    table = pd.DataFrame(rows)
    print(f"\n{table.to_string(index=False)}\n")
    chance = mae["metrics"]["chance"]
    print(f"One seed, {iterations} short iterations, chance {chance:.1f} %: this shows that the suite works, not which")
    print("method is better. Accuracies: frozen encoder, mean-pooled patch tokens, test images never used before.\n")
    print(f"{work_dir}/*/record.json      what was run, on what, with which result")
    print(f"{work_dir}/*/pictures/*.png   rows: image, masked image, scores, reconstruction")
    print(f"{work_dir}/*/checkpoints      mlomae export CKPT OUT writes the encoder for timm, mmseg, mmdet")
    print(f"tensorboard --logdir {work_dir}   loss curves of the three levels")
    return table


def _row(number: int, kind: str, title: str, iterations: int, work_dir: Path) -> dict[str, Any]:
    print(f"\n[{number}/3] {title}: {iterations} outer iterations", flush=True)
    name = title.lower().replace(", ", "_").replace(" ", "-")
    config = load_config(
        CONFIGS / f"{kind}_vit-w128-d4_textures.py",
        {
            "name": f"demo_{name}",
            "method": title,
            "demo": True,
            "train.outer_iterations": iterations,
            "train.log_interval": 25,
            "data.probe_limit": 5000,
        },
    )
    folder = work_dir / name if number < 3 else work_dir / f"{name}_{iterations}"
    return run_pretraining(config, folder, resume=True)


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": record["method"],
        "images seen": sum(record["images_seen"].values()),
        "k-NN %": round(record["metrics"]["knn_top1_avg"], 1),
        "linear probe %": round(record["metrics"]["linear_top1_avg"], 1),
        "wall-clock s": round(record["wall_clock_s"]),
    }
