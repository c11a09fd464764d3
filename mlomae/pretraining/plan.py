"""`mlomae plan`: what a pretraining will load and hold, from its configuration alone; data and weights are not read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlomae.common.registry import check_range
from mlomae.config.schema import PretrainConfig, load_config
from mlomae.config.strict import overrides
from mlomae.data import MemorySource
from mlomae.data.registry import find_dataset
from mlomae.data.streams import DECODED, check_divisible, piece_size
from mlomae.masking import is_trainable

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


def plan(config: str, cfg_options: list[str], processes: int = 1) -> tuple[str, int]:
    """The text of `mlomae plan`, and the status 0. Raises ConfigError for a wrong configuration."""
    settings = load_config(Path(config), overrides(cfg_options))
    found = plan_loading(settings, processes)
    levels = ", ".join(f"{count:,} {level}" for level, count in found.images.items())
    total, size = sum(found.images.values()), settings.model.img_size
    iterations = settings.train.outer_iterations
    each = "" if processes == 1 else f" in each of {processes} processes"
    lines = [
        f"{settings.name}: {iterations:,} outer iterations, {iterations * total * processes:,} images",
        f"an iteration{each}: {total:,} images of {size} pixels ({levels}), {_size(found.batches)} in float32",
    ]
    if found.workers:
        piece = f"pieces of {found.piece_images} images, {_size(found.piece)} in uint8"
        lines.append(f"data.num_workers={found.workers} a process: {piece}; {_AHEAD} at a time for each worker")
        most = f"at most {_size(found.loading)} a process"
        lines.append(f"memory of loading: {most}" + (f", {_size(found.loading * processes)} in all" if each else ""))
    else:
        lines.append("images are read by the training process: no workers")
    return "\n".join(lines), 0


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
