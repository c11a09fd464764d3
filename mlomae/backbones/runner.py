"""MMEngine's Runner for a transfer: it resumes with the same bits; what it was trained from is part of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.optim import OptimWrapperDict
from mmengine.registry import LOOPS
from torch import nn
from torch.utils.data import DataLoader

from mlomae.backbones.batches import EpochBatches, ImageLoader
from mlomae.common.checkpoint import TRANSFER_FORMAT
from mlomae.common.errors import CheckpointError, DataError
from mlomae.config.strict import build_dataclass, plain
from mlomae.pretraining.exact_runner import ExactRunner
from mlomae.pretraining.hooks import AtomicCheckpointHook
from mlomae.pretraining.loop import OuterLoop


@LOOPS.register_module()
class TransferLoop(OuterLoop):
    """`OuterLoop` over batches that a sampler numbers: it starts wherever the checkpoint ended."""

    remedy = "lower optim.lr or set optim.clip_grad"

    def _loader(self) -> DataLoader:
        sampler: EpochBatches = self.dataloader.batch_sampler
        return ImageLoader(
            self.dataloader.dataset,
            batch_sampler=sampler.starting_at(self.iter),
            num_workers=self.num_workers,
            collate_fn=self.dataloader.collate_fn,
        )


class TransferRunner(ExactRunner):
    """Resumes a transfer; what it was trained from is part of its configuration."""

    format = TRANSFER_FORMAT
    recorded = ("loss",)
    free_to_change = frozenset(
        {"data.num_workers", "train.log_interval", "train.checkpoint_interval", "train.keep_checkpoints"}
    )

    def saved_settings(self, values: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = build_dataclass(type(self.settings), plain(values)).to_dict()
        return kept

    def load_further_state(self, state: dict[str, Any]) -> None:
        """The path of the weights is in the configuration; what lay there when the run began is in ``meta``."""
        if state["meta"]["origin"] != self.meta["origin"]:
            raise CheckpointError(
                f"the backbone's weights are not those that the run in '{self.run_dir}' started from; put the file "
                "back, or choose another work dir"
            )


def build_runner(
    config: Any,
    model: nn.Module,
    loader: ImageLoader,
    optim_wrapper: OptimWrapperDict,
    schedulers: list[dict[str, Any]],
    test_loader: ImageLoader,
    metric: BaseMetric,
    work_dir: Path,
    meta: dict[str, Any],
    resume: bool = False,
) -> TransferRunner:
    """Wire model, data, optimizer and metric together; under ``torchrun`` the process group must have been joined.

    ``schedulers``: of the one level, "model". ``meta``: `mlomae.backbones.run.TransferRun.meta`.
    """
    batches = loader.batch_sampler
    assert isinstance(batches, EpochBatches)
    return TransferRunner.create(
        config,
        work_dir,
        meta,
        resume,
        loop="TransferLoop",
        iterations=batches.stop,
        model=model,
        train_dataloader=loader,
        optim_wrapper=optim_wrapper,
        param_scheduler={"model": schedulers},
        test_dataloader=test_loader,
        test_cfg={},
        test_evaluator=metric,
        custom_hooks=[AtomicCheckpointHook(config.train.checkpoint_interval, config.train.keep_checkpoints)],
    )


def train_and_test(runner: TransferRunner) -> None:
    """Train to the end, from a checkpoint or not, then evaluate; DataError if the disk is full."""
    try:
        runner.train()
    except OSError as error:
        raise DataError(f"training stopped: {error}; free disk space or fix the path, then resume") from error
    runner.test_loop.run()
