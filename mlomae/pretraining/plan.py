"""`mlomae plan`: what a pretraining will load, hold and compute, from its configuration alone; data are not read."""

from dataclasses import dataclass
from typing import Any

import torch

from mlomae.common.errors import MlomaeError, counted, first_line_of
from mlomae.common.peaks import PEAKS, matrix_rate
from mlomae.common.registry import check_choice, check_range
from mlomae.common.system import cpu_model
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.config.strict import overrides, read_config
from mlomae.data import MemorySource
from mlomae.data.registry import PUBLISHED, find_dataset
from mlomae.data.streams import DECODED, check_divisible, piece_size
from mlomae.masking import is_trainable
from mlomae.pretraining.estimate import Estimate, estimate
from mlomae.pretraining.log import duration
from mlomae.pretraining.run import images_seen

DEVICES = ("cpu", *PEAKS)
SHARES = {device: 0.6 if device == "cpu" else 0.4 for device in DEVICES}
"""Of the peak, on which times rest: `results/speed.md` has 0.61 for a processor; that of GPUs is a guess."""
ASSUMED = 1000  # classes of a data set that only its files would tell
_AHEAD = 2  # pieces that torch's DataLoader asks of a worker in advance


@dataclass(frozen=True)
class LoadingPlan:
    """What one process of a run loads in an outer iteration, and the most that loading holds; sizes in bytes.

    Attributes:
        images: of each level in an iteration, this process's share.
        batches: float32 images of an iteration, on the training device.
        piece_images, piece: images of a worker's item, and its size.
        worker: what a worker holds beyond the pieces it has made: decoded images, one of 12 megapixels among them.
        workers: of the process; 0 if all images are in memory.
    """

    images: dict[str, int]
    batches: int
    piece_images: int
    piece: int
    worker: int
    workers: int

    @property
    def loading(self) -> int:
        """Most bytes that all workers of a process hold, and what waits in their queues."""
        return self.workers * (_AHEAD * self.piece + self.worker)


def plan_loading(config: PretrainConfig, processes: int = 1) -> LoadingPlan:
    """Raises ConfigError if a batch size is no multiple of ``processes``."""
    check_range("", "[1, inf)", processes=processes)
    data, size = config.data, config.model.img_size
    feedback = data.feedback_batch_size or data.batch_size
    check_divisible({"data.batch_size": data.batch_size, "data.feedback_batch_size": feedback}, processes)
    images = {"lower": config.levels.lower_steps * data.batch_size // processes}
    if is_trainable(config.mask["type"]):
        images |= {"head": feedback // processes, "upper": feedback // processes}
    sources = [source for source in (data.train, data.feedback if len(images) > 1 else None) if source]
    in_memory = all(_in_memory(source) for source in sources)
    count = min(piece_size(size), *images.values())
    return LoadingPlan(
        images,
        batches=sum(images.values()) * 3 * size**2 * 4,
        piece_images=count,
        piece=count * 3 * size**2,
        worker=0 if in_memory else DECODED + 3 * 12_000_000,
        workers=0 if in_memory else data.num_workers,
    )


def _in_memory(source: dict[str, Any]) -> bool:
    return issubclass(find_dataset(source["type"]), MemorySource) or bool(source.get("cache"))


def plan(
    config: str, cfg_options: list[str], processes: int = 1, device: str = "cpu", share: float | None = None
) -> tuple[str, int]:
    """The text of `mlomae plan`, and the status 0.

    ``device``: of `PEAKS`, one for each process, or "cpu", this machine's processor for all of them. ``share``: of its
    peak, by default `SHARES`. Raises ConfigError for a wrong configuration, device or share.
    """
    check_choice("", DEVICES, device=device)
    check_range("", "(0, 1]", share=SHARES[device] if share is None else share)
    settings = _on_device(read_config(config, overrides(cfg_options), "configs/pretrain/"), device)
    loading = plan_loading(settings, processes)
    classes, assumed = _classes(settings)
    lines = [_heading(settings, device, processes), *_loading(settings, loading, processes)]
    try:
        found = estimate(settings, classes, processes)
    except MlomaeError:
        raise
    except Exception as error:  # a strategy can ask for a value in any way
        why = f"a step of this configuration cannot be taken without values ({first_line_of(error)[:200]})"
        return "\n".join([*lines, f"memory, operations and time: not known; {why}"]), 0
    lines.insert(1, _parameters(found, f" (of {classes:,} classes, assumed)" if assumed else ""))
    lines += [*_memory(found, device, processes), *_time(settings, found, device, processes, share or SHARES[device])]
    return "\n".join(lines), 0


def _on_device(values: dict[str, Any], device: str) -> PretrainConfig:
    """The configuration, in which ``amp="auto"`` becomes what the device computes in hardware."""
    train = dict(values.get("train") or {})
    if device != "cpu" and train.get("amp", "auto") == "auto":
        train["amp"] = "bf16"
    return config_from_dict({**values, "train": train})


def _classes(config: PretrainConfig) -> tuple[int, bool]:
    """Of the feedback, and whether that is a guess."""
    source = config.data.feedback or config.data.train
    given = source.get("classes")
    if isinstance(given, int) or given:
        return given if isinstance(given, int) else len(given), False
    known = PUBLISHED.get(source["type"])
    return (known.classes, False) if known else (ASSUMED, True)


def _parameters(found: Estimate, of_classes: str) -> str:
    said = lambda n: f"{n / 1e6:,.1f} M" if n >= 1e6 else f"{n:,}"  # noqa: E731
    parts = [
        f"{name} {said(count)}{of_classes if name == 'feedback' else ''}" for name, count in found.parameters.items()
    ]
    return f"parameters: {said(sum(found.parameters.values()))} ({', '.join(parts)})"


def _heading(config: PretrainConfig, device: str, processes: int) -> str:
    where = PEAKS[device].title if device in PEAKS else cpu_model()
    amp = "bfloat16" if config.train.amp == "bf16" else "float32"
    return f"{config.name}: {counted(processes, 'process')} on {where}, {amp}"


def _loading(config: PretrainConfig, found: LoadingPlan, processes: int) -> list[str]:
    levels = ", ".join(f"{count:,} {level}" for level, count in found.images.items())
    total, size = sum(found.images.values()), config.model.img_size
    each = "" if processes == 1 else " in each process"
    lines = [
        f"run: {config.train.outer_iterations:,} outer iterations, {_images(config):,} images",
        f"an iteration{each}: {total:,} images of {size} pixels ({levels}), {_size(found.batches)} in float32",
    ]
    if not found.workers:
        return [*lines, "loading: images are read by the training process, no workers"]
    piece = f"{_AHEAD} pieces of {found.piece_images} images ({_size(found.piece)}) at a time"
    lines.append(f"loading: {found.workers} workers a process, each with {piece}")
    most = f"at most {_size(found.loading)} a process"
    return [*lines, f"memory of loading: {most}" + (f", {_size(found.loading * processes)} in all" if each else "")]


def _memory(found: Estimate, device: str, processes: int) -> list[str]:
    parts = {"weights": found.weights, "optimizer states": found.states, "batches": found.batches}
    parts["activations and gradients"] = found.activations
    each = "" if processes == 1 else " of each process"
    lines = [
        f"memory of tensors{each}: at most {_size(found.peak)} at once",
        "  " + ", ".join(f"{_size(count)} {name}" for name, count in parts.items()),
    ]
    if device in PEAKS and found.peak > (room := PEAKS[device].memory):
        lines.append(
            f"  more than the {_size(room)} of an {PEAKS[device].title}: raise train.accumulate, or --processes"
        )
    return lines


def _time(config: PretrainConfig, found: Estimate, device: str, processes: int, share: float) -> list[str]:
    amp = config.train.amp
    if device in PEAKS:
        peak = PEAKS[device].bf16 if amp == "bf16" else PEAKS[device].fp32
        rate, what = processes * peak, f"{peak / 1e12:,.0f} TFLOP/s a device"
    else:
        rate = matrix_rate(torch.bfloat16 if amp == "bf16" else torch.float32)
        what = f"{rate / 1e9:,.0f} GFLOP/s, measured now with {counted(torch.get_num_threads(), 'thread')}"
    total = processes * found.total
    seconds = total / rate / share
    return [
        f"operations: {total:.3g}, at most {max(found.operations.values()):.3g} an iteration and process "
        "(a multiply-add is 2)",
        f"time: {duration(seconds)} at {share:.0%} of the peak ({what}); the share is assumed (--share)",
        f"  if loading gives {_images(config) / seconds:,.0f} images/s; without logs, pictures, evaluation",
    ]


def _images(config: PretrainConfig) -> int:
    """That a run reads, repetitions counted."""
    return sum(images_seen(config, config.levels.warmup).values())


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
