"""What an outer iteration costs, without taking it: memory and operations of a step on tensors without values.

`PretrainStep` itself runs, with the batch sizes of the configuration and all that the strategy does in it, on the
tensors of `mlomae.common.hollow`. An outer iteration has one of three kinds (`mlomae.pretraining.feedback_gate`): masks
are still random ("warm-up"), φ rests ("between") or moves ("upper"); after some of them the feedback is judged
("probe"). Each kind that a run has is taken once, in the middle of the run, where schedules of the mask are half done.

Not in it are logs, pictures and evaluations; images that a data set keeps in memory, which are on the device, too; the
copies of gradients that several processes average; and what kernels and an allocator need for themselves. Compilation
is left out. Autocast is that of the CPU, which keeps softmax in bf16 where a GPU has float32.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mlomae.common.flops import FlopCounter
from mlomae.common.hollow import Hollow
from mlomae.config.schema import PretrainConfig
from mlomae.masking import MaskingStrategy, is_trainable
from mlomae.masking.teacher import PRETRAINED
from mlomae.pretraining.feedback_gate import is_probe, moves_phi
from mlomae.pretraining.health import feedback_scores
from mlomae.pretraining.optim import build_optimizers
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.step import PretrainStep

# kind -> iteration of φ's first step for which iteration 1 is of this kind, with upper_every=2
BEGIN = {"warm-up": -1, "between": 0, "upper": 1}
DRAWS, RATIOS = 1000, 10  # draws of a random ratio; the quantiles of them that are counted


@dataclass(frozen=True)
class Estimate:
    """Of one process, sizes in bytes.

    Attributes:
        parameters: of each part of the model that training uses.
        weights: parameters and buffers of the whole model.
        states: of the optimizers.
        batches: of an iteration, as they are on the device.
        peak: the most that tensors take at once; what is above the three before is activations and gradients.
        operations: of an outer iteration of each kind, and of a probe; a multiply-add is two.
        total: operations of the whole run.
    """

    parameters: dict[str, int]
    weights: int
    states: int
    batches: int
    peak: int
    operations: dict[str, float]
    total: float

    @property
    def activations(self) -> int:
        """With gradients, at the peak."""
        return self.peak - self.weights - self.states - self.batches


def estimate(config: PretrainConfig, classes: int, processes: int = 1) -> Estimate:
    """``classes`` are the feedback's. Where φ waits for ``levels.warmup_margin``, it is taken to begin at
    ``levels.warmup``. Raises what `Pretrainer` raises, and anything where a step reads a value."""
    numbers = occurrences(config, config.levels.warmup if is_trainable(config.mask["type"]) else -1)
    with torch.random.fork_rng(devices=[]):
        model = Pretrainer(halfway(config), classes).train()
    ratios = ratios_of(model)
    lower, feedback = config.data.batch_size // processes, config.data.feedback_batch_size // processes
    operations = {}
    with Hollow() as memory:
        model.to_empty(device="cpu")
        weights = memory.live
        optimizers = build_optimizers(model.level_parameters(), model.config)
        step = CountedStep(model, optimizers)
        make_states(optimizers.values())
        states = memory.live - weights
        data = _data(model, lower, feedback)
        batches = memory.live - states - weights
        memory.reset_peak()
        for kind in (kind for kind, number in numbers.items() if number):
            if step.gate is not None and kind in BEGIN:
                step.gate.begin = BEGIN[kind]
            function = partial(_probe, model, data) if kind == "probe" else partial(step, data, 1)
            operations[kind] = step.mean_flops(function, ratios)
    total = sum(number * operations.get(kind, 0.0) for kind, number in numbers.items())
    return Estimate(_parameters(model), weights, states, batches, memory.peak, operations, total)


# --- the iterations of a run ------------------------------------------------------------------------------------------


def occurrences(config: PretrainConfig, begin: int) -> dict[str, int]:
    """How many outer iterations of each kind a run has, and after how many of them the feedback is probed.

    ``begin``: the outer iteration of φ's first step, -1 for never.
    """
    n = config.train.outer_iterations
    if not is_trainable(config.mask["type"]):
        return {"between": n, "probe": 0}
    upper = sum(moves_phi(t, begin, config.levels.upper_every) for t in range(n))
    random = begin if begin >= 0 else n
    return {
        "warm-up": random,
        "between": n - random - upper,
        "upper": upper,
        "probe": sum(is_probe(t) for t in range(n)),
    }


def halfway(config: PretrainConfig) -> PretrainConfig:
    """A run of two iterations, of which `BEGIN` says the kind of the second. Weights, whose values change no cost, are
    not read."""
    train = replace(config.train, compile=False, cuda_graphs=False, outer_iterations=2)
    teacher = config.mask.get("teacher")
    mask = {**config.mask, "teacher": teacher.removesuffix(PRETRAINED)} if isinstance(teacher, str) else config.mask
    levels = replace(config.levels, upper_every=2, warmup=0)
    return replace(config, train=train, levels=levels, mask=mask, init_from=None)


def ratios_of(model: Pretrainer) -> list[float]:
    """The share of patches that is removed; where it is drawn for every batch, quantiles of its distribution."""
    if type(model.mask).batch_ratio is MaskingStrategy.batch_ratio:
        return [model.ratio]
    drawn = sorted(model.mask.batch_ratio(model.ratio, key) for key in range(DRAWS))
    return drawn[DRAWS // RATIOS // 2 :: DRAWS // RATIOS]


class CountedStep(PretrainStep):
    """Uses the ratio that is set instead of drawing one."""

    ratio = 0.75

    def ratio_of(self, number: int) -> float:
        return self.ratio

    def mean_flops(self, function: Any, ratios: list[float]) -> float:
        """Operations of one call, the mean over ``ratios``."""
        with FlopCounter() as counter:
            for self.ratio in ratios:
                function()
        return counter.total / len(ratios)


@torch.no_grad()
def _probe(model: Pretrainer, data: dict[str, Any]) -> None:
    """`mlomae.pretraining.feedback_gate.judge`, but for the comparison with the labels."""
    with model.autocast():
        feedback_scores(model, data["head"], data["upper"])


# --- what a process holds ---------------------------------------------------------------------------------------------


def make_states(optimizers: Iterable[Optimizer]) -> None:
    """The optimizers' states, which they make in their first step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _data(model: Pretrainer, lower: int, feedback: int) -> dict[str, Any]:
    """What `OuterBatches` gives for an iteration."""
    config, side = model.config, model.config.model.img_size

    def batch(source: dict[str, Any], size: int, pixels: bool = False) -> dict[str, Tensor]:
        found = {name: torch.empty(size, dtype=torch.int64) for name in ("label", "key", "index", "epoch")}
        found["image"] = torch.empty(size, 3, side, side)
        found["object"] = torch.empty(size, side, side, dtype=torch.bool)  # which of the sets have, their files say
        return {**found, "pixel_label": torch.empty(size, side, side, dtype=torch.uint8)} if pixels else found

    data: dict[str, Any] = {"lower": [batch(config.data.train, lower) for _ in range(config.levels.lower_steps)]}
    if model.mask.trainable:
        labelled = partial(batch, config.data.feedback or config.data.train, feedback, model.feedback.dense)
        data |= {"head": labelled(), "upper": labelled()}
    return data


def _parameters(model: Pretrainer) -> dict[str, int]:
    modules: dict[str, nn.Module | None] = {"encoder": model.mae.encoder, "decoder": model.mae.decoder}
    modules |= {"mask": model.mask, "auxiliary loss": model.auxiliary}
    modules |= {"feedback": model.feedback if model.mask.trainable else None}
    counts = {name: sum(p.numel() for p in m.parameters()) for name, m in modules.items() if m is not None}
    return {name: count for name, count in counts.items() if count}
