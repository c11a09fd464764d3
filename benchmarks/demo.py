"""`make demo`: the whole way in small, on embedded data: pretrain MAE and MLO-MAE, transfer them to three tasks.

One table: MAE for the same images, MAE for the same wall-clock, MLO-MAE, random weights as the floor. What is finished
is not repeated, what was interrupted goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.process import ROOT
from benchmarks.tasks.classification.embedded import BENCH as CLASSIFICATION
from benchmarks.tasks.detection.embedded import BENCH as DETECTION
from benchmarks.tasks.segmentation.embedded import BENCH as SEGMENTATION
from benchmarks.transfer.embedded import Bench, transfer_all
from benchmarks.transfer.found import Backbone, floor_of, name_backbones
from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import ConfigError
from mlomae.config.schema import load_config
from mlomae.pretraining.run import run_pretraining
from mlomae.records import Record

ITERATIONS = 300  # outer iterations of MLO-MAE: with the transfers the demo stays below twenty minutes on two cores
BENCHES = (CLASSIFICATION, SEGMENTATION, DETECTION)
SHOWN = ("k-NN", "linear", "fine-tuning", "mIoU", "box AP", "mask AP")
Found = dict[tuple[Backbone, str], Record]


def run_demo(work_dir: Path, iterations: int = ITERATIONS, jobs: int = 2) -> int:
    """Pretrain, transfer, print; returns 0, or 1 if a transfer failed.

    Raises ConfigError where the configurations are not beside the package (not an editable install).
    """
    pretrained = pretrain_rows(work_dir, iterations)
    backbones = name_backbones([str(list_checkpoints(folder)[-1]) for folder, _ in pretrained])
    seconds = dict(zip(backbones, (record["wall_clock_s"] for _, record in pretrained), strict=True))
    backbones += floor_of(backbones[0])
    found: list[tuple[Bench, Found]] = []
    complete = True
    for bench in BENCHES:
        print(f"\nTransfer to {bench.task}: ", end="")
        records, all_made = transfer_all(bench, backbones, work_dir / "transfer" / bench.task, {}, jobs)
        found.append((bench, records))
        complete = complete and all_made
    print(f"\n{one_table(backbones, seconds, found).to_string(index=False)}\n")
    print("In percent; s: seconds of pretraining, wall-clock; 8 textures, images that no pretraining saw. One seed and")
    print("short runs on images made for the purpose: it shows that the suite works, not which method is better.")
    print("Comparisons with seeds and intervals are in results/README.md.\n")
    print(f"{work_dir}/*/record.json           what was run, on what, with which result")
    print(f"{work_dir}/*/pictures/*.png        rows: image, masked image, scores, reconstruction")
    print(f"{work_dir}/*/checkpoints           mlomae export CKPT OUT writes the encoder for timm, mmseg, mmdet")
    print(f"{work_dir}/transfer/TASK/METHOD/*  record, predictions and pictures of each transfer")
    print(f"tensorboard --logdir {work_dir}    loss curves of the three levels")
    return 0 if complete else 1


def pretrain_rows(work_dir: Path, iterations: int) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and record of MAE for the same images, MAE for the same wall-clock, MLO-MAE.

    The length of the second is measured: as many MAE iterations as fit the wall-clock that MLO-MAE took.
    """
    mlo = _pretrain(1, "mlomae-pooled", "MLO-MAE", iterations, work_dir / "mlo-mae")
    mae = _pretrain(2, "mae", "MAE, same images", iterations, work_dir / "mae_same-images")
    longer = max(1, round(iterations * mlo[1]["wall_clock_s"] / mae[1]["wall_clock_s"]))
    name = f"mae_same-wall-clock_{longer}"
    return [mae, _pretrain(3, "mae", "MAE, same wall-clock", longer, work_dir / name), mlo]


def _pretrain(number: int, kind: str, title: str, iterations: int, folder: Path) -> tuple[Path, dict[str, Any]]:
    print(f"\n[{number}/3] Pretraining of {title}: {iterations} outer iterations", flush=True)
    path = ROOT / "configs" / "pretrain" / f"{kind}_vit-w128-d4_textures.py"
    if not path.is_file():
        raise ConfigError(f"the demo needs the configs of a source checkout ('{path}' is missing); run `make demo`")
    changes = {"name": f"demo_{folder.name}", "method": title, "demo": True, "data.probe_limit": 5000}
    lengths = {"train.outer_iterations": iterations, "train.log_interval": 25}
    return folder, run_pretraining(load_config(path, {**changes, **lengths}), folder, resume=True)


def one_table(
    backbones: list[Backbone], seconds: dict[Backbone, float], found: list[tuple[Bench, Found]]
) -> pd.DataFrame:
    """One row a backbone, the columns of all tasks that are ``SHOWN``; "" where a transfer failed."""
    rows = []
    for b in backbones:
        row: dict[str, Any] = {"backbone": b.origin.method, "images seen": b.images_seen, "s": round(seconds.get(b, 0))}
        for bench, records in found:
            for column, (title, metric) in bench.columns.items():
                if column in SHOWN:
                    record = records.get((b, title))
                    row[column] = f"{record['metrics'][metric]:.1f}" if record else ""
        rows.append(row)
    return pd.DataFrame(rows)
