"""Floating-point operations of a pretraining, counted on a few synthetic images from its configuration alone.

An outer iteration of kind k costs  B a_k + U c_k  operations, B the lower batch, U the feedback batch:

    total = Σ_k n_k (B a_k + U c_k) + U p · probes

The kinds are those of `mlomae.pretraining.feedback_gate`: masks are still random ("warm-up"), φ rests ("between") or
moves ("upper"). What is counted is `PretrainStep` itself, with all that the strategy does in it (teachers, second
decoders, adversaries, the hypergradient), and a probe of the feedback; not logs, pictures and evaluations. a_k and c_k
follow from two counts, of which the second has a lower batch twice as large.

- A schedule of the mask is taken at progress 0.5 of the run, whatever it is before and after.
- A ratio that is drawn for every batch is averaged over its distribution.
- Only matrix products and convolutions count (`benchmarks.cost.speed.measure.FlopCounter`): no optimizer, no norm, no
  eigenvectors, singular values or Cholesky factors, which some strategies take of small matrices.
- It is this code's count, also for a record of an older commit.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.cost.speed.measure import count_flops
from benchmarks.cost.speed.setting import random_batch
from mlomae.common.errors import DataError
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.masking import MaskingStrategy, is_trainable
from mlomae.masking.teacher import PRETRAINED
from mlomae.pretraining.feedback_gate import is_probe, judge, moves_phi
from mlomae.pretraining.optim import build_optimizers
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import images_seen
from mlomae.pretraining.step import PretrainStep
from mlomae.records import Record

BATCH = 8  # images of each level; the cost is linear in them
# kind of an outer iteration -> the first one that moved φ, seen from iteration 1 where every second one does
BEGIN = {"warm-up": -1, "between": 0, "upper": 1}
DRAWS, RATIOS = 1000, 10  # of a ratio that is drawn; the quantiles of them that stand for all


@dataclass(frozen=True)
class Share:
    """Operations of one outer iteration for each image of a lower and of a feedback batch."""

    lower: float
    feedback: float = 0.0

    def of(self, lower_batch: int, feedback_batch: int) -> float:
        """Operations of one outer iteration with batches of these sizes."""
        return self.lower * lower_batch + self.feedback * feedback_batch


@dataclass(frozen=True)
class Costs:
    """``kinds``: those of BEGIN that were counted; ``probe``: operations for each image of an upper batch."""

    kinds: dict[str, Share]
    probe: float = 0.0


class CountedStep(PretrainStep):
    """Takes the ratio that it is told instead of drawing one."""

    ratio = 0.75

    def ratio_of(self, number: int) -> float:
        return self.ratio


def ratios_of(model: Pretrainer) -> list[float]:
    """Ratios of equal weight that stand for those which the strategy draws."""
    if type(model.mask).batch_ratio is MaskingStrategy.batch_ratio:
        return [model.ratio]
    drawn = sorted(model.mask.batch_ratio(model.ratio, key) for key in range(DRAWS))
    step = DRAWS // RATIOS
    return drawn[step // 2 :: step]


# --- what a record says ---------------------------------------------------------------------------------------------


def config_of(record: Record) -> PretrainConfig:
    """The configuration of a record such that nothing is read from a disk: the values of weights change no count.

    Raises ConfigError for one that this code does not know.
    """
    mask = record["config"].get("mask")
    if isinstance(mask, dict) and isinstance(mask.get("teacher"), str):
        mask = {**mask, "teacher": mask["teacher"].removesuffix(PRETRAINED)}
    return config_from_dict({**record["config"], "mask": mask, "init_from": None})


def classes_of(record: Record) -> int:
    """Classes of the feedback by its chance, those of the evaluation without one; they matter to a head alone."""
    metrics = record["metrics"]
    return max(2, round(100.0 / metrics.get("feedback_chance", metrics.get("chance", 1.0))))


def begin_of(record: Record, config: PretrainConfig) -> int:
    """Outer iteration of φ's first step, -1 for never. Raises DataError for a record that contradicts itself."""
    levels = config.levels
    known = -1 if levels.warmup_margin else levels.warmup
    begin = int(record["metrics"].get("phi_started", known))
    length = config.train.outer_iterations
    if record["outer_iterations"] != length or record["images_seen"] != images_seen(config, begin):
        raise DataError("images_seen and outer_iterations are not what its configuration gives; run it again")
    return begin


def occurrences(config: PretrainConfig, begin: int) -> dict[str, int]:
    """How many outer iterations of each kind a run has, and after how many of them the feedback is probed."""
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


# --- counting -------------------------------------------------------------------------------------------------------


def counted_batch(config: PretrainConfig) -> int:
    """BATCH, or the next larger number that divides into the chunks of ``train.accumulate``."""
    chunks = config.train.accumulate
    return chunks * -(-BATCH // chunks)


def count_costs(config: PretrainConfig, classes: int, batch: int) -> Costs:
    """Count every kind of outer iteration that a run of ``config`` can have; ``batch`` images of each level.

    Always on the CPU, in float32 and without compilation, which change no count. Raises what `Pretrainer` raises.
    """
    train = replace(config.train, amp="none", compile=False, outer_iterations=2)
    config = replace(config, train=train, levels=replace(config.levels, upper_every=2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Pretrainer(config, classes).train()
        step, ratios = CountedStep(model, build_optimizers(model.level_parameters(), config)), ratios_of(model)

        def mean_count(lower: int, feedback: int) -> float:
            counts = []
            for ratio in ratios:
                step.ratio = ratio
                counts.append(count_flops(partial(step, _data(model, lower, feedback), 1)))
            return sum(counts) / len(counts)

        if step.gate is None:
            return Costs({"between": Share(mean_count(batch, batch) / batch)})
        kinds = {}
        for kind, begin in BEGIN.items():
            step.gate.begin = begin
            once, more = mean_count(batch, batch), mean_count(2 * batch, batch)
            kinds[kind] = Share((more - once) / batch, (2 * once - more) / batch)
        return Costs(kinds, count_flops(partial(judge, model, _data(model, batch, batch))) / batch)


def _data(model: Pretrainer, lower: int, feedback: int) -> dict[str, Any]:
    """What `OuterBatches` gives for outer iteration 1 of 2, half of the run being done."""
    steps = model.config.levels.lower_steps
    data: dict[str, Any] = {"lower": [_batch(model, lower, number) for number in range(steps)]}
    if model.mask.trainable:
        data |= {"head": _batch(model, feedback, steps), "upper": _batch(model, feedback, steps + 1)}
    return data


def _batch(model: Pretrainer, size: int, number: int) -> dict[str, Tensor]:
    side, classes, generator = model.config.model.img_size, model.num_classes, torch.Generator().manual_seed(number)
    pixels = torch.randint(classes, (size, side, side), generator=generator)
    batch = random_batch(size, side, classes, number, generator)
    return {**batch, "object": pixels == 0, "pixel_label": pixels.to(torch.uint8)}


def total_flops(config: PretrainConfig, costs: Costs, begin: int) -> float:
    """Operations of a whole run, with the batch sizes of ``config``."""
    lower, feedback = config.data.batch_size, config.data.feedback_batch_size
    number = occurrences(config, begin)
    steps = sum(number.get(kind, 0) * share.of(lower, feedback) for kind, share in costs.kinds.items())
    return steps + number["probe"] * costs.probe * feedback
