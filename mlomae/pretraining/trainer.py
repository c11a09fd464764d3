"""The one training loop, of pretraining and of every transfer: steps, log, checkpoints, exact resume.

Iterations t are counted from 0. All that an iteration does is a function of the state before it, of t and of its batch,
and a checkpoint holds the state: a run that is killed and resumed ends with the bits of one that never was. There is no
wrapper for data parallelism; a step averages its gradients over ranks itself.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size, is_main_process
from timm.utils import random_seed
from torch import Tensor, nn
from torch.optim import Optimizer

from mlomae.common import checkpoint
from mlomae.common.console import Stage, stage
from mlomae.common.errors import CheckpointError, ConfigError, DataError, MlomaeError, TrainingError, counted, lack_of
from mlomae.common.workers import from_worker
from mlomae.pretraining import stopping
from mlomae.pretraining.continuing import check_same_run, facts_of, naming
from mlomae.pretraining.devices import check_same_on_ranks, to_device, weights_digest
from mlomae.pretraining.log import Recent, Scalars, logger, run_log
from mlomae.pretraining.restore import restore

Batch: TypeAlias = Any
Step: TypeAlias = Callable[[Batch, int], dict[str, Tensor]]
"""(batch on the device, t) -> losses, 0-dim, detached, this rank's; updates the parameters."""
Hook: TypeAlias = Callable[[int, Batch, dict[str, Tensor], "dict[str, float] | None"], None]
"""(t, batch, losses, values), after the step. ``values`` are the means that are about to be logged, None where nothing
is; a hook may add to them. A hook with a method ``recent()`` gives the console further means since its last line."""
Rate: TypeAlias = Callable[[int], float]


class Task(NamedTuple):
    """How kinds of runs differ: the format of checkpoints, the logged values that a record keeps, the configuration
    keys that may change on resume because no number depends on them, and the remedy for a run that diverges."""

    format: str
    recorded: tuple[str, ...]
    free_to_change: frozenset[str]
    remedy: str


@dataclass(eq=False)
class Trainer:
    """Trains with ``step`` up to ``iterations``; afterwards ``logged`` has the values for the record and ``clock`` the
    wall-clock and processor seconds of training, summed over interruptions.

    Losses stay on the device and are averaged over an interval before the host sees them, so that a step never waits
    for the device. Values that are not finite are found then, and always before a checkpoint is written.

    Args:
        config: a dataclass with ``seed``, ``train`` (intervals) and ``to_dict()``; a checkpoint keeps it.
        meta: stored in checkpoints with it.
        model: in training mode while it trains. Its device is that of the batches.
        modules: what a checkpoint keeps of the model, by name.
        rates: of each optimizer, one for each parameter group.
        batches: the batches of iteration t, t + 1, ... to the last one.
        stateful: what else a checkpoint keeps, by name: objects with ``state_dict`` and ``load_state_dict``.
        resume: continue from the newest checkpoint of ``work_dir`` if there is one.
        check_resumed: raises CheckpointError for a checkpoint that this run must not continue.
    """

    task: Task
    config: Any
    work_dir: Path
    meta: dict[str, Any]
    _: KW_ONLY
    model: nn.Module
    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    rates: Mapping[str, Sequence[Rate]]
    step: Step
    batches: Callable[[int], Iterable[Batch]]
    iterations: int
    hooks: Sequence[Hook] = ()
    stateful: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    check_resumed: Callable[[dict[str, Any]], None] = lambda state: None

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.iteration = 0  # how many are done
        self.logged: dict[str, float] = {}
        self.clock = {"wall": 0.0, "cpu": 0.0}
        self._sums: dict[str, Tensor] = {}
        self._terms: dict[str, int] = {}
        self._recent = Recent()

    def train(self) -> None:
        """Train to the end. Raises TrainingError if the run diverges, CheckpointError for a checkpoint that cannot be
        written (before the first step, if the disk has no room) or resumed, DataError for an image that cannot be read
        or another file that cannot be written, ConfigError if ranks differ in what they are to compute. Raises Stopped,
        on all ranks after the same step and with a checkpoint of it, if a signal asks for it."""
        check_same_on_ranks(facts_of(self.config, self.meta) | {"iterations": self.iterations, "resume": self.resume})
        random_seed(self.config.seed)
        resumed_from, self._damaged = self._resume() if self.resume else (None, [])
        if get_world_size() > 1:
            check_same_on_ranks({"weights": weights_digest(self.model)})
        if is_main_process():
            size, train = checkpoint.estimated_bytes(self.modules.values(), self.optimizers.values()), self.config.train
            if resumed_from is not None and not self._damaged:  # a killed run may have written one and removed none
                checkpoint.prune(self.work_dir, train.keep_checkpoints)
            saves = math.ceil((self.iterations - self.iteration) / train.checkpoint_interval)
            checkpoint.check_room(self.work_dir, size, saves, train.keep_checkpoints)
        try:
            scalars = Scalars(self.work_dir, self.iteration, self.iterations, self.config)
            with run_log(self.work_dir), closing(scalars):
                for path in self._damaged:
                    logger.warning(f"{path} is damaged; an earlier checkpoint takes its place")
                if resumed_from is not None:
                    logger.info(f"resumed from {resumed_from} after {counted(self.iteration, 'iteration')}")
                with stage("training", self.iterations, self.iteration) as bar:
                    self._loop(scalars, bar)
        except BrokenPipeError:  # who read the console has gone
            raise
        except OSError as error:
            if (lack := lack_of(error)) is not None:
                raise lack from error
            raise DataError(f"training stopped: {error}; free disk space or fix the path, then resume") from error

    def _loop(self, scalars: Scalars, bar: Stage) -> None:
        train, agreement = self.config.train, stopping.Agreement()
        stopping.request.training = True
        started, before = seconds(), dict(self.clock)
        self.model.train()
        self._set_rates()
        for data in scalars.timed(self._batches()):
            t, done = self.iteration, self.iteration + 1
            batch = to_device(data, self.device)
            losses = self.step(batch, t)
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
                self._terms[name] = self._terms.get(name, 0) + 1  # a level may start within an interval
            scalars.begin(done, losses)
            log_due = done % train.log_interval == 0 or done == self.iterations
            save_due = done % train.checkpoint_interval == 0 or done == self.iterations
            values = self._drain(done) if log_due or save_due else None
            for hook in self.hooks:
                hook(t, batch, losses, values)
            if values is not None:
                self.logged |= {name: float(values[name]) for name in self.task.recorded if name in values}
            if log_due and values is not None:
                recent = self._recent.take()
                for hook in self.hooks:
                    recent |= getattr(hook, "recent", dict)()
                scalars.write(done, {f"{name}.lr": rates[0](t) for name, rates in self.rates.items()} | values, recent)
            self.iteration = done
            bar.advance(done, scalars.shown)
            self._set_rates()
            self.clock = {kind: before[kind] + now - started[kind] for kind, now in seconds().items()}
            stop = done < self.iterations and agreement.reached()
            if save_due or stop:
                self._save({} if values is not None else self._unfinished_interval(done))
            if stop:
                agreement.wait()  # for the file: the first process to end may make a launcher end the others
                break
        else:
            stop = agreement.close()
        stopping.request.training = False
        if stop:
            path = checkpoint.checkpoint_path(self.work_dir, self.iteration)
            by = stopping.request.signal or "a signal to another process"
            after = counted(self.iteration, "iteration")
            raise stopping.Stopped(f"stopped by {by} after {after}, which '{path}' holds")

    def _save(self, more: dict[str, Any]) -> None:
        if not is_main_process():
            return
        for path in self._damaged:  # or they would be the newest ones of the next resume
            path.unlink(missing_ok=True)
        self._damaged = []
        checkpoint.save_atomically(self._state() | more, checkpoint.checkpoint_path(self.work_dir, self.iteration))
        checkpoint.prune(self.work_dir, self.config.train.keep_checkpoints)

    def _batches(self) -> Iterator[Batch]:
        try:
            yield from self.batches(self.iteration)
        except MlomaeError as error:
            raise from_worker(error) from error

    def _set_rates(self) -> None:
        """Rates of the next iteration, or of the last one: a checkpoint holds those that training continues with."""
        t = min(self.iteration, self.iterations - 1)
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = rate(t)

    def _drain(self, done: int) -> dict[str, float]:
        """Mean losses since the last call, over ranks.

        Raises TrainingError, on every rank, if a loss or a weight is not finite: losses are those before the update,
        and may be finite when the weights no longer are."""
        means = self._means(done)
        for name, mean in means.items():
            self._recent.add(name, mean, self._terms[name])
        self._sums, self._terms = {}, {}
        return means

    def _means(self, done: int) -> dict[str, float]:
        """`_drain`, which leaves the sums as they are."""
        stacked = torch.stack([total / self._terms[name] for name, total in self._sums.items()])
        all_reduce(stacked, op="mean")
        means = dict(zip(self._sums, stacked.tolist(), strict=True))
        remedy = (
            f"start again in another --work-dir with {self.task.remedy}"  # weights of a checkpoint may be past help
        )
        for name, value in means.items():
            if not math.isfinite(value):
                terms = max(self._terms.values())
                raise TrainingError(
                    f"{name} is not finite ({value}) within the {terms} iterations before {done}; {remedy}"
                )
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(f"weights are not finite after iteration {done} (first: {name}); {remedy}")
        return means

    def _unfinished_interval(self, done: int) -> dict[str, Any]:
        """What a checkpoint between two logs keeps besides: the sums since the last one, of every rank.

        Raises TrainingError as `_drain`."""
        self._means(done)
        parts = {name: part.unsettled() for name, part in self.stateful.items() if hasattr(part, "unsettled")}
        own = {"sums": {name: t.cpu() for name, t in self._sums.items()}, "terms": self._terms, "parts": parts}
        return {"interval": all_gather_object(own)}

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """Everything needed to continue as if never interrupted; `mlomae.common.checkpoint` describes it."""
        return {
            "format": self.task.format,
            "iteration": self.iteration,
            "processes": get_world_size(),
            "config": self.config.to_dict(),
            "meta": self.meta,
            "clock": self.clock,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            **{name: part.state_dict() for name, part in self.stateful.items()},
            "rng": checkpoint.rng_state(),
            "logged": self.logged,
        }

    def _resume(self) -> tuple[Path | None, list[Path]]:
        """Load the newest checkpoint that is not damaged, if there is one; its path, and newer ones that are.

        Those of version 0.1 have what they need: their state of schedules, which are functions of the iteration now, is
        not read, and parts added since start afresh."""
        state, path, damaged = checkpoint.load_newest(self.work_dir, self.task.format)
        # a folder that not all of them see; and no rank may write a checkpoint before all have looked
        check_same_on_ranks({"the checkpoint to resume": path and path.name})
        if state is None or path is None:
            return None, []
        try:
            check_same_run(state, self.config, self.meta, path, self.task.free_to_change)
            self.check_resumed(state)
            if state["iteration"] > self.iterations or f"iter_{state['iteration']}" != path.stem:
                raise CheckpointError(f"holds {state['iteration']:,} in 'iteration', of {self.iterations:,}")
            restore(state, self.modules, self.optimizers, self.stateful)
            checkpoint.set_rng_state(state["rng"])
        except (CheckpointError, ConfigError) as error:
            raise type(error)(naming(path, error)) from error
        self.iteration, self.clock, self.logged = state["iteration"], dict(state["clock"]), dict(state["logged"])
        if interval := state.get("interval"):
            own = to_device(interval[get_rank()], self.device)
            self._sums, self._terms = own["sums"], own["terms"]
            for name, unsettled in own["parts"].items():
                self.stateful[name].load_unsettled(unsettled)
        return path, damaged


def seconds() -> dict[str, float]:
    """Wall-clock and processor seconds; differences of two readings are times."""
    return {"wall": time.perf_counter(), "cpu": time.process_time()}


def elapsed(started: dict[str, float]) -> dict[str, float]:
    """Seconds since the reading ``started``."""
    return {kind: now - started[kind] for kind, now in seconds().items()}
