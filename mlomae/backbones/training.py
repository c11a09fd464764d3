"""The update and the evaluation that all transfers share; `mlomae.pretraining.trainer` has the training loop.

As in pretraining there is no wrapper for data parallelism: gradients are averaged over ranks before the step, so that N
processes make the same update as one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any, TypeVar

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from timm.optim import Lars
from torch import Tensor, manual_seed, nn

from mlomae.backbones.batches import ImageLoader
from mlomae.backbones.config import OptimConfig
from mlomae.common.checkpoint import TRANSFER_FORMAT
from mlomae.common.console import on_terminal, stage
from mlomae.common.errors import DataError
from mlomae.common.random_keys import root_key
from mlomae.pretraining.devices import require_bf16
from mlomae.pretraining.log import FILE_ONLY, logger
from mlomae.pretraining.optim import rates
from mlomae.pretraining.reduction import mean_over_ranks
from mlomae.pretraining.trainer import Task

T = TypeVar("T")
Batch = dict[str, Any]
TASK = Task(
    format=TRANSFER_FORMAT,
    recorded=("loss",),
    free_to_change=frozenset(
        {
            "data.num_workers",
            "data.train.title",
            "data.val.title",
            "data.test.title",
            "train.log_interval",
            "train.checkpoint_interval",
            "train.keep_checkpoints",
        }
    ),
    remedy="a lower optim.lr",
)


def build_optimizer(groups: list[dict[str, Any]], settings: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer that ``settings.type`` names, over groups with rates of their own.

    LARS scales the step of matrices alone, as MAE's main_linprobe.py does; timm's would leave out all of them where
    ``weight_decay`` is 0, which it is there.
    """
    if settings.type == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=tuple(settings.betas), fused=True)
    if settings.type == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    adapted = [{**group, "always_adapt": all(p.ndim > 1 for p in group["params"])} for group in groups]
    return Lars(adapted, lr=settings.lr, momentum=settings.momentum)


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Average the running statistics over ranks, so that all ranks evaluate and resume with the same ones."""
    if get_world_size() == 1:
        return
    held = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    for name, mean in mean_over_ranks(held).items():
        held[name].copy_(mean)


class TransferStep:
    """One update of an MMEngine model, whose random draws depend on (seed, iteration, rank) alone.

    Args:
        model: has ``data_preprocessor``, ``forward(..., mode="loss")`` and ``parse_losses``. A model with a method
            ``autocast`` uses it around some of its parts; for others the step uses autocast for the whole model.
        modules: what a checkpoint keeps, by name.
        groups: of the optimizer, each with its rate at the peak.
        config: with ``seed``, ``optim`` and ``train.amp``.
        decay: of `mlomae.pretraining.optim.rates`.

    Raises TrainingError if mixed precision was asked for but the first trained layer does not compute in bf16.
    """

    def __init__(
        self,
        model: Any,
        modules: Mapping[str, nn.Module],
        groups: list[dict[str, Any]],
        config: Any,
        *,
        decay: str = "cosine",
    ) -> None:
        self.model, self.modules, self.config, self.decay = model, modules, config, decay
        self.optimizer = build_optimizer(groups, config.optim)
        self.casts_itself = hasattr(model, "autocast")
        if config.train.amp != "none":
            layers = [m for m in model.modules() if isinstance(m, nn.Linear)]  # a trained one, if any is linear
            layer = next((m for m in layers if m.weight.requires_grad), layers[0])
            require_bf16(layer, model.autocast() if self.casts_itself else self.autocast())

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 autocast if the configuration asks for it and the model does not open it itself."""
        enabled = self.config.train.amp == "bf16" and not self.casts_itself
        return torch.autocast(next(self.model.parameters()).device.type, torch.bfloat16, enabled=enabled)

    def __call__(self, data: Batch, t: int) -> dict[str, Tensor]:
        """One update on a batch; the model's losses before it, and the norm of the gradient where it is clipped."""
        # Drop path, dropout and samplers of boxes depend on this key alone, so that a resumed run has the same bits.
        manual_seed(root_key(self.config.seed, "drop", t, get_rank()))
        with self.autocast():
            losses = self.model(**self.model.data_preprocessor(data, True), mode="loss")
        loss, shown = self.model.parse_losses(losses)
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        means = mean_over_ranks({str(i): p.grad for i, p in enumerate(parameters)})
        for p, mean in zip(parameters, means.values(), strict=True):
            p.grad = mean
        if self.config.optim.clip_grad:
            shown["grad_norm"] = torch.nn.utils.clip_grad_norm_(parameters, self.config.optim.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        average_statistics(self.model)
        return {name: value.detach() for name, value in shown.items()}

    def rates(self, iterations: int) -> list[Callable[[int], float]]:
        """The learning rate schedule of each parameter group."""
        peaks = [group["lr"] for group in self.optimizer.param_groups]
        tables = {peak: rates(self.config.optim, iterations, decay=self.decay, peak=peak) for peak in set(peaks)}
        return [tables[peak].__getitem__ for peak in peaks]


def gather(parts: list[T]) -> list[T]:
    """The items of all ranks, in rank order. MMEngine's ``collect_results`` would cut off the last items instead of the
    padded copies, and leaves a folder behind."""
    return [part for parts_of_rank in all_gather_object(parts) for part in parts_of_rank]


class GatheringMetric(ABC):
    """Metrics of the test images, on every rank, the same for any number of processes; ``summary`` keeps them.

    ``rows``: one for each image that this rank has seen, its index in the test set first.
    """

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.summary: dict[str, float] = {}

    @abstractmethod
    def process(self, data_samples: Sequence[Any]) -> None:
        """Add a row for each image of a batch, given the results of ``test_step``."""

    @abstractmethod
    def compute(self, rows: list[Any]) -> dict[str, float]:
        """The metrics of the test set, from the rows of all images in the order of their indices."""

    def evaluate(self, size: int) -> dict[str, float]:
        """The metrics of the ``size`` images of the test set, on every rank.

        Raises DataError unless the ranks together have seen every image once.
        """
        rows = sorted(gather(self.rows), key=itemgetter(0))
        self.rows.clear()
        if not size or len(rows) != size or len({row[0] for row in rows}) < size:
            raise DataError(f"evaluation saw {len(rows)} of {size} images; give every image once, under its own index")
        self.summary = self.compute(rows)
        return self.summary


@torch.no_grad()
def evaluate(model: Any, loader: ImageLoader, metric: GatheringMetric, log_interval: int) -> None:
    """Run the model on this rank's share of the test set, then compute ``metric`` over all ranks."""
    model.eval()
    interval = max(log_interval, len(loader) // 5)
    with stage("testing", len(loader)) as bar:
        for done, data in enumerate(loader, 1):
            metric.process(model.test_step(data))
            bar.advance(done)
            if done % interval == 0:
                logger.info(f"test {done}/{len(loader)}", extra=FILE_ONLY if on_terminal() else None)
    metric.evaluate(len(loader.dataset))  # type: ignore[arg-type]
