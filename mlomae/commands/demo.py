"""The first act of `mlomae demo`: MAE and MLO-MAE, trained for about as long on embedded data, beside random weights.

It ends with a table and a picture of their masks. Finished runs are not repeated, interrupted ones are resumed.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.console import say
from mlomae.common.errors import TrainingError
from mlomae.common.processes import Progress, command_line, end_of, start
from mlomae.config.schema import PretrainConfig, load_config
from mlomae.diagnostics.masks import draw_masks
from mlomae.pretraining.evaluation import evaluate
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import open_sources, probe_batches
from mlomae.records import RANDOM, Record, read_record

RUNS = {"mae": 900, "mlomae-pooled": 400}  # config -> outer iterations, which take about the same processor time
# More and smaller steps than in those configs, and a longer warm-up: after one of 5 % the loss stays on a plateau for a
# third of the run, with some seeds for all of it. On validation images: MAE's k-NN 64 to 74 and linear probe 90 to 91
# (seeds 1 to 5), MLO-MAE's 61 to 71 and 86 to 91 (1 to 3), random weights' 45 to 50 and 80 to 82 (1 to 3).
CHANGES = {
    "demo": True,
    "data.batch_size": 32,
    "optim.theta.warmup": 0.2,
    "data.probe_limit": 5000,
    "train.log_interval": 10,
}
EFFORT = 130.0  # processor seconds of each (AMD EPYC)
MASKS = "masks.png"
METRICS = {"k-NN %": "knn_top1_avg", "linear probe %": "linear_top1_avg"}


def pretrain_demo(
    work_dir: Path, jobs: int = 2, progress: Progress | None = None, lengths: dict[str, int] = RUNS
) -> list[Path]:
    """Pretrain, ``jobs`` runs at a time with one thread each, and print the table; the last checkpoints, MAE's first.

    The table has images seen, processor seconds, and accuracies of the frozen encoder on held-out images. ``progress``:
    a display that is open and counts these runs, too. Raises TrainingError, with the end of its log, if a run fails.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    say(f"MAE and MLO-MAE are pretrained on embedded images, {jobs} at a time; logs: {work_dir}/*/log.txt")
    stop = threading.Event()
    own = Progress("demo", EFFORT * len(lengths))
    with nullcontext(progress) if progress else own as shown, ThreadPoolExecutor(jobs) as pool:
        try:
            runs = [pool.submit(_pretrain, kind, n, work_dir, shown, stop) for kind, n in lengths.items()]
            floor = _random_weights(load_config(_path("mae"), _changes(1)))
            folders = [run.result() for run in runs]
        except BaseException:
            stop.set()
            raise
    records = [read_record(folder / "record.json", str(folder / "record.json")) for folder in folders]
    checkpoints = [list_checkpoints(folder)[-1] for folder in folders]
    draw_masks([], checkpoints, work_dir / MASKS)
    say(f"\n{_table(floor, records)}\n")
    for line in _what_to_see(records, work_dir):
        say(line)
    return checkpoints


def _pretrain(kind: str, iterations: int, work_dir: Path, progress: Progress, stop: threading.Event) -> Path:
    config = load_config(_path(kind), _changes(iterations))
    folder = work_dir / kind
    folder.mkdir(exist_ok=True)
    log = folder / "log.txt"
    options = [f"{key}={value!r}" for key, value in _changes(iterations).items()]
    command = command_line("pretrain", str(_path(kind)), "--resume", "--work-dir", str(folder), "--cfg-options")
    with progress.run(config.method, EFFORT, log):
        status = start([*command, *options], log, stop=stop)
    if status:
        raise TrainingError(f"{config.method} ended with status {status}; '{log}' ends with\n{end_of(log)}")
    return folder


def _path(kind: str) -> str:
    return f"configs/pretrain/{kind}_vit-w128-d4_textures.py"


def _changes(iterations: int) -> dict[str, Any]:
    return {**CHANGES, "train.outer_iterations": iterations}


def _random_weights(config: PretrainConfig) -> dict[str, float]:
    """The metrics of the weights with which ``config`` begins."""
    torch.manual_seed(config.seed)
    sources = open_sources(config)
    encoder = Pretrainer(config, 2).mae.encoder
    return evaluate(encoder, *probe_batches(config, sources["train"], sources["eval"]))


def _table(floor: dict[str, float], records: list[Record]) -> str:
    rows: list[dict[str, Any]] = [{"pretraining": RANDOM, "images seen": 0, "processor s": 0, **_shown(floor)}]
    for record in records:
        seen, seconds = record["images_seen"]["lower"], round(record["cpu_s"])
        rows.append({"pretraining": record["method"], "images seen": seen, "processor s": seconds})
        rows[-1] |= _shown(record["metrics"])
    return pd.DataFrame(rows).to_string(index=False)


def _shown(metrics: dict[str, float]) -> dict[str, str]:
    return {title: f"{metrics[name]:.1f}" for title, name in METRICS.items()}


def _what_to_see(records: list[Record], work_dir: Path) -> list[str]:
    lines = [
        "Top-1 of the frozen encoder on held-out images; chance is 12.5 %. MAE uses no labels, the feedback of MLO-MAE "
        "those of the training images. This is one seed: results/README.md has seeds and intervals.",
        f"{work_dir / MASKS}: what each one removes (grey). Darker patches weigh more in MLO-MAE's loss. Are they on "
        "the objects (outlined)?",
    ]
    if (auroc := records[-1]["metrics"].get("sigma_object_auroc")) is not None:
        lines.append(
            f"Over 64 images, an object's patch has the higher weight in {100 * auroc:.0f} % of pairs; 50 % is chance."
        )
    return lines
