"""What a user is told of a pretraining: before it what will run, on what and where; after it what came out, and the
commands that go on from there."""

import shlex
from pathlib import Path
from typing import Any

import torch

from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import counted
from mlomae.common.precision import describe_amp
from mlomae.common.system import cpu_model
from mlomae.config.schema import PretrainConfig
from mlomae.masking import is_trainable
from mlomae.pretraining.devices import training_device
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import PretrainData
from mlomae.records import Record


def introduction(
    config: PretrainConfig, data: PretrainData, model: Pretrainer, work_dir: Path, kept: str = ""
) -> list[str]:
    """A few lines: method, images, model, device, length, and the folder of what is written; ``kept`` is the file of
    the configuration there."""
    encoder, sizes = model.mae.encoder, {**vars(config.data), **data.lowered}
    kind = config.mask["type"]
    learned = f", {config.feedback['type']} feedback" if is_trainable(kind) else ""
    patches = f"{encoder.num_patches} patches of {encoder.patch_size} pixels"
    lower = len(data.batches.lower)
    images = [f"{lower:,} to train on at {config.model.img_size} pixels"]
    if len(data.train) > lower:
        rest = len(data.train) - lower
        images.append(f"{rest:,} {'that teach the mask' if learned else 'set aside (data.val_fraction)'}")
    if data.evaluation is not None:
        images.append(f"{len(data.evaluation):,} held out for k-NN and probe")
    if data.num_classes > 1:
        images.append(f"{data.num_classes:,} classes")
    decoder = sum(p.numel() for p in model.mae.decoder.parameters())
    steps = config.levels.lower_steps
    seen = config.train.outer_iterations * steps * sizes["batch_size"]
    return [
        f"method: {config.method}, mask '{kind}' that removes {model.ratio:.0%} of {patches}{learned}",
        f"images: {', '.join(images)}",
        f"model: ViT, width {encoder.embed_dim}, depth {encoder.depth}, {_count(encoder)} parameters, "
        f"beside them {decoder / 1e6:.1f} M in the decoder",
        f"device: {device_phrase(config)}",
        f"length: {counted(config.train.outer_iterations, 'iteration')} of {steps} x {sizes['batch_size']} images, "
        f"{counted(round(seen / lower), 'pass')}",
        f"output: {work_dir} ({kept and f'{kept}, '}checkpoints, pictures, train.log, TensorBoard)",
        *_near(data),
    ]


def _near(data: PretrainData) -> list[str]:
    counts = data.copies.get("training") or {}
    if not counts.get("near"):
        return []
    share = f"{counts['near']:,} of {counted(counts['compared'], 'held-out image')}"
    return [f"note: {share} have near copies among those trained on, so that k-NN and linear probe flatter the model"]


def _count(module: torch.nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"


def device_phrase(config: PretrainConfig) -> str:
    """E.g. ``CPU (AMD EPYC), 2 threads, float32 (no bfloat16 in hardware)``."""
    device = training_device()
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        where = f"CPU ({cpu_model()}), {counted(threads, 'thread')}"
    return f"{where}, {describe_amp(config.train.amp, config.model.width)}"


def conclusion(record: Record, config: PretrainConfig, work_dir: Path) -> list[str]:
    """What a finished run found, where its weights are, and three commands that go on."""
    metrics, lines = record["metrics"], []
    if "knn_top1_avg" in metrics:
        knn, probe = metrics["knn_top1_avg"], metrics["linear_top1_avg"]
        held_out = counted(int(metrics["n_test"]), "held-out image")
        lines.append(
            f"k-NN {knn:.1f} %, linear probe {probe:.1f} % of {held_out} (encoder "
            f"frozen, averaged tokens); chance {metrics['chance']:.1f} %"
        )
    if "loss_lower" in metrics:
        lines.append(f"last loss_lower {metrics['loss_lower']:.4g}, in {record['wall_clock_s']:,.0f} s of training")
    checkpoints = list_checkpoints(work_dir)
    weights = checkpoints[-1] if checkpoints else work_dir
    pictures = work_dir / "pictures"
    lines += [f"weights: {weights}", f"pictures: {pictures}, record: {work_dir / 'record.json'}", "go on with:"]
    commands = next_commands(config, work_dir, weights)
    return lines + [f"  {shlex.join(map(str, command))}" for command in commands]


def next_commands(config: PretrainConfig, work_dir: Path, weights: Path) -> list[list[Any]]:
    """Three commands: fine-tuning, or where there are no labels the masks; features; an export."""
    train, own = config.data.train, config.data.train["type"] in ("imagefolder", "pictures")
    root = Path(train["root"]) if own else Path("FOLDER")
    images = root / train.get("split", ".") if own else root
    first: list[Any] = ["masks", "--checkpoints", weights, "--out", work_dir / "masks.png"]
    if config.data.eval is not None:
        first = ["classify", "--data", root, "--weights", work_dir]
    embed = ["embed", work_dir, images, "--out", work_dir / "features.npz"]
    export = ["export", weights, work_dir / "timm", "--format", "timm"]
    return [["mlomae", *command] for command in (first, embed, export)]
