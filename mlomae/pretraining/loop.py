"""The training loop: one item of the data loader is one outer iteration; it starts wherever the checkpoint ended."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop
from torch import Tensor
from torch.utils.data import DataLoader

from mlomae.common.errors import MlomaeError, TrainingError, from_worker


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a nest of dicts and lists of tensors."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: to_device(v, device) for k, v in batch.items()}
    if isinstance(batch, list):
        return [to_device(v, device) for v in batch]
    return batch


@LOOPS.register_module()
class OuterLoop(BaseLoop):
    """Runs ``train_step`` for every outer iteration.

    Losses stay on the device and are averaged over ``log_interval`` iterations before the host sees them, so that a
    step never waits for the device; NaN is found then, and always before a checkpoint is written.
    """

    remedy = "lower the learning rate or set optim.theta.clip_grad"

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader,
        max_iters: int,
        num_workers: int,
        log_interval: int,
        checkpoint_interval: int,
    ) -> None:
        super().__init__(runner, dataloader)
        self.max_iters = self._max_iters = max_iters
        self.max_epochs = self._max_epochs = 1
        self.epoch, self.iter = 0, 0
        self.num_workers, self.log_interval, self.checkpoint_interval = num_workers, log_interval, checkpoint_interval
        self.clock = {"wall": 0.0, "cpu": 0.0}
        self._started = (0.0, 0.0)
        self.losses: dict[str, Tensor] = {}  # of the last outer iteration, on the device
        self._sums: dict[str, Tensor] = {}
        self._terms: dict[str, int] = {}
        self._counted = 0

    def seconds(self) -> dict[str, float]:
        """Wall-clock and processor seconds of training so far, interruptions added up, evaluation left out."""
        wall, cpu = self._started
        return {
            "wall": self.clock["wall"] + time.perf_counter() - wall,
            "cpu": self.clock["cpu"] + time.process_time() - cpu,
        }

    def _loader(self) -> DataLoader:
        positions = range(self.iter, self.max_iters)
        return DataLoader(
            self.dataloader.dataset,
            batch_size=None,
            sampler=positions,  # any iterable of indices
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # every start would draw from the global one
            num_workers=self.num_workers,
        )

    def _batches(self) -> Iterator[Any]:
        try:
            yield from self._loader()
        except MlomaeError as error:
            raise from_worker(error) from error

    def _drain(self, iteration: int) -> dict[str, float]:
        """Mean losses since the last call, over ranks; raises TrainingError, on every rank, if one is not finite."""
        stacked = torch.stack([total / self._terms[name] for name, total in self._sums.items()])
        all_reduce(stacked, op="mean")
        means = dict(zip(self._sums, stacked.tolist(), strict=True))
        for name, value in means.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} is not finite ({value}) within the {self._counted} outer iterations before {iteration}; "
                    f"{self.remedy}, then resume from the last checkpoint"
                )
        self._sums, self._terms, self._counted = {}, {}, 0
        return means

    def _check_weights(self, iteration: int) -> None:
        """Losses are those before the update, so they can be finite when the weights no longer are."""
        for name, parameter in self.runner.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(
                    f"weights are not finite after outer iteration {iteration} (first: {name}); {self.remedy}, "
                    "then resume from the last checkpoint"
                )

    def run(self) -> torch.nn.Module:
        runner = self.runner
        self._started = (time.perf_counter(), time.process_time())
        device = next(runner.model.parameters()).device
        runner.model.train()
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        for data in self._batches():
            t = self.iter
            runner.call_hook("before_train_iter", batch_idx=t, data_batch=data)
            self.losses = runner.model.train_step({**to_device(data, device), "iteration": t}, runner.optim_wrapper)
            for name, value in self.losses.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
                self._terms[name] = self._terms.get(name, 0) + 1  # a level may start within an interval
            self._counted += 1
            done = t + 1
            due = done % self.log_interval == 0 or done % self.checkpoint_interval == 0 or done == self.max_iters
            outputs = self._drain(done) if due else None
            if due:
                self._check_weights(done)
            runner.call_hook("after_train_iter", batch_idx=t, data_batch=data, outputs=outputs)
            self.iter = done
        self.clock = self.seconds()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model
