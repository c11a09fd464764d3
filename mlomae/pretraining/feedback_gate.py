"""When the mask begins to learn, and whether the feedback it learns from carries a signal.

One lower-level step estimates a patch's value too noisily to train the mask early on, and a feedback at chance never
does better. So every PROBE_INTERVAL-th outer iteration the feedback predicts the labels of the upper batch, on which
its head has not trained. With ``levels.warmup_margin`` masks are random until, after t ≥ ``levels.warmup`` iterations,

    p − c ≥ margin   and   p − c ≥ 4 s(n),   s(n) = √(c(1 − c)/n),

p the accuracy over the last WINDOW probes, c chance: what a constant prediction reaches, the share of the most frequent
class of the upper split, or of its pixels (1/C only if classes are equally frequent). n is the number of images judged,
at most those of the upper split, because judging an image twice is no new evidence. Four standard errors, not two,
because of the repeated tests: in a simulation a feedback at chance passes within 500 probes with probability 0.98 at
two, 0.31 at three and 0.01 at four (8 classes, 128 images per probe, margin 0.5).

Independently of the margin, an epoch (a pass over the head's data, at least WINDOW probes) whose accuracy is not two
standard errors above chance leads to a warning that names the remedy.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypedDict

import numpy as np
import torch
from mmengine.dist import all_reduce
from numpy.typing import NDArray
from torch import Tensor

from mlomae.common.errors import CheckpointError, ConfigError, DataError
from mlomae.common.registry import NotNegative
from mlomae.common.structure import check_structure
from mlomae.config.schema import PretrainConfig
from mlomae.data import IGNORE, OuterBatches, Stream
from mlomae.data.reader import in_threads
from mlomae.feedback import is_joint
from mlomae.pretraining.health import feedback_scores
from mlomae.pretraining.log import logger
from mlomae.pretraining.pretrainer import Pretrainer

PROBE_INTERVAL = 10  # outer iterations; a probe costs one encoder pass, two if the feedback is joint
WINDOW = 10  # probes
ERRORS_TO_START, ERRORS_TO_WARN = 4.0, 2.0


def is_probe(t: int) -> bool:
    """Whether the feedback is judged after outer iteration ``t``, counted from 0."""
    return (t + 1) % PROBE_INTERVAL == 0


def moves_phi(t: int, begin: int, every: int) -> bool:
    """Whether outer iteration ``t`` takes a step on φ: every n-th from ``begin`` on; -1 is never."""
    return 0 <= begin <= t and (t - begin) % every == 0


# --- chance -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chance:
    """``share`` in [0, 1] is what a constant prediction gets right of the ``images`` of the upper split."""

    share: float
    images: int

    def error(self, judged: int) -> float:
        """Standard error of the share of right predictions at chance, over ``judged`` images."""
        return math.sqrt(self.share * (1.0 - self.share) / max(1, min(judged, self.images)))


def chance_of(batches: OuterBatches, num_classes: int) -> Chance:
    """Chance on the upper split. Raises DataError if the head's or the upper images are not labelled with classes."""
    assert batches.head is not None
    assert batches.upper is not None
    for stream in (batches.head, batches.upper):
        source = stream.source.describe()
        if num_classes < 2:
            raise DataError(
                f"the feedback needs labels of at least two classes, {source} has {num_classes}; "
                "set data.feedback to a labelled training source"
            )
        wrong = 0 if stream.pixels else int(((stream.labels < 0) | (stream.labels >= num_classes)).sum())
        if wrong:
            raise DataError(
                f"{wrong} images of {source} that the feedback would use have no label inside "
                f"0..{num_classes - 1}; set data.feedback to a labelled training source"
            )
    return chance_on(batches.upper, num_classes)


def chance_on(upper: Stream, num_classes: int) -> Chance:
    """Chance on the images of one stream. Where pixels have the labels, the best class's mean share of an image's
    labelled pixels, before any augmentation; images without one do not count."""
    if not upper.pixels:
        count = torch.bincount(upper.labels, minlength=num_classes).max()
        return Chance(int(count) / len(upper), len(upper))

    def counts(i: int) -> NDArray[np.int64]:
        return np.bincount(upper.source.pixel_labels(i).numpy().ravel(), minlength=IGNORE + 1)[:IGNORE]

    shares = [counts_C / counts_C.sum() for counts_C in in_threads(counts, upper.indices.tolist()) if counts_C.any()]
    if not shares:
        raise DataError(f"no pixel of the {len(upper)} upper images of {upper.source.describe()} is labelled")
    return Chance(float(np.mean(shares, axis=0).max()), len(shares))


# --- the gate ---------------------------------------------------------------------------------------------------------


class _Watch(TypedDict):
    begin: Annotated[int, "[-1, inf)"]
    window: list[list[NotNegative]]
    epoch: list[NotNegative]


class FeedbackGate:
    """The probes so far, and ``begin``: the iteration of φ's first step, -1 while it is not known.

    Plain numbers on the host, so that no iteration waits for the device; a checkpoint keeps them.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.window: deque[tuple[float, int]] = deque(maxlen=WINDOW)  # right, judged
        self.right: float = 0
        self.judged = self.probes = self.since = 0  # of the present epoch, which began at ``since``

    def state_dict(self) -> dict[str, Any]:
        window = [list(pair) for pair in self.window]
        return {"begin": self.begin, "window": window, "epoch": [self.right, self.judged, self.probes, self.since]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`. Raises CheckpointError, naming the field, for values of another form."""
        check_structure(state, _Watch, "watch:")
        if len(state["epoch"]) != 4 or any(len(pair) != 2 for pair in state["window"]):
            raise CheckpointError("watch: holds other than four numbers in 'epoch', or than pairs in 'window'")
        self.begin = state["begin"]
        self.window = deque(((right, judged) for right, judged in state["window"]), maxlen=WINDOW)
        self.right, self.judged, self.probes, self.since = state["epoch"]

    def add(self, right: float, judged: int) -> None:
        """One probe, summed over ranks."""
        self.window.append((right, judged))
        self.right, self.judged, self.probes = self.right + right, self.judged + judged, self.probes + 1

    def recent(self) -> tuple[float, int]:
        """Share of right predictions over the window, and the images judged in it."""
        judged = sum(n for _, n in self.window)
        return sum(r for r, _ in self.window) / max(1, judged), judged

    def beats(self, chance: Chance, margin: float) -> bool:
        """The criterion above; ``margin`` in percentage points."""
        share, judged = self.recent()
        return judged > 0 and share - chance.share >= max(margin / 100.0, ERRORS_TO_START * chance.error(judged))

    def epoch(self, done: int, length: int) -> tuple[float, int] | None:
        """After ``done`` iterations: share and images of the epoch if it is over (then the next one begins)."""
        if done - self.since < length or self.probes < WINDOW:
            return None
        result = self.right / max(1, self.judged), self.judged
        self.right, self.judged, self.probes, self.since = 0, 0, 0, done
        return result


@torch.no_grad()
def judge(model: Pretrainer, data: dict[str, Any]) -> tuple[float, int]:
    """Number of right predictions on the upper batch (of dense feedback the sum of the images' shares) and its size,
    over all ranks; waits for the device."""
    with model.autocast():
        correct_U = model.feedback.correct(feedback_scores(model, data["head"], data["upper"]), data["upper"])
    right, judged = correct_U.sum(), torch.tensor(len(correct_U), device=correct_U.device)
    for count in (right, judged):
        all_reduce(count)
    return right.item(), int(judged.item())


class FeedbackProbe:
    """The trainer's hook: probes the feedback, opens the gate when it beats chance, and warns where it does not.

    Raises ConfigError if chance leaves no room for the margin.
    """

    def __init__(self, model: Pretrainer, gate: FeedbackGate, batches: OuterBatches) -> None:
        self.model, self.gate, self.config = model, gate, model.config
        self.margin = self.config.levels.warmup_margin
        self._recent: list[tuple[float, int]] = []
        self.chance = chance_of(batches, model.num_classes)
        assert batches.head is not None
        assert batches.upper is not None
        self.largest = batches.feedback_batch_size + batches.world_size > min(len(batches.head), len(batches.upper))
        self.epoch_length = math.ceil(len(batches.head) / batches.feedback_batch_size)
        if self.margin and 100.0 * self.chance.share + self.margin > 100.0:
            raise ConfigError(
                f"levels.warmup_margin {self.margin:g}: a constant prediction gets {100 * self.chance.share:.1f} % of "
                "the upper split right, so that no feedback can exceed it by so much; lower the margin"
            )

    def __call__(self, t: int, data: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        gate, done, last = self.gate, t + 1, self.config.train.outer_iterations
        if is_probe(t):
            gate.add(*judge(self.model, data))
            self._recent.append(gate.window[-1])
            may_begin = self.config.levels.warmup <= done < last
            if gate.begin < 0 and may_begin and gate.beats(self.chance, self.margin):
                gate.begin = done
                logger.info(f"warm-up over after {done} outer iterations: {self._describe(*gate.recent())}")
            epoch = gate.epoch(done, self.epoch_length)
            if epoch is not None and epoch[0] - self.chance.share < ERRORS_TO_WARN * self.chance.error(epoch[1]):
                logger.warning(
                    f"the feedback stayed at chance for the epoch that ends at outer iteration {done}, so that a mask "
                    f"would learn from noise: {self._describe(*epoch)}; {self._remedy()}"
                )
        if values is not None:
            values["phi_started"] = gate.begin
        if done == last and gate.begin < 0:
            logger.warning(
                "THE MASK NEVER LEARNED, this was a run with random masks: the feedback did not beat chance by "
                f"levels.warmup_margin={self.margin:g} points and {ERRORS_TO_START:g} standard errors; "
                f"{self._describe(*gate.recent())}; {self._remedy()}"
            )

    def recent(self) -> dict[str, float]:
        """For the console: the accuracy on all upper images judged since the last time, in percent, beside chance."""
        right, judged = (sum(counts) for counts in zip((0.0, 0), *self._recent, strict=True))
        self._recent = []
        if not judged:
            return {}
        return {"feedback_accuracy": 100.0 * right / judged, "feedback_chance": 100.0 * self.chance.share}

    def _describe(self, share: float, judged: int) -> str:
        images = min(judged, self.chance.images)  # judging one twice is no new evidence
        return (
            f"'{self.config.feedback['type']}' is right on {100 * share:.1f} % of {images} upper images, "
            f"chance {100 * self.chance.share:.1f} %, its standard error {100 * self.chance.error(judged):.1f}"
        )

    def _remedy(self) -> str:
        kind, feedback = self.config.feedback["type"], self.model.feedback
        ways = [] if is_joint(kind) else ["raise levels.head_steps"]
        ways.append("give it more labelled images" if self.largest else "raise data.feedback_batch_size")
        if not feedback.sees_patches:
            ways.append("set feedback.pooling='avg'")
        if kind != "nca" and not feedback.dense:
            ways.append("set feedback.type='nca'")
        return ", ".join([*ways, "lengthen levels.warmup"])


# --- which batches are needed ------------------------------------------------------------------------------


def _levels_at(t: int, begin: int, every: int, joint: bool, intervals: tuple[int, ...]) -> tuple[str, ...]:
    if moves_phi(t, begin, every) or any((t + 1) % interval == 0 for interval in intervals):
        return ("head", "upper")
    return () if joint else ("head",)


def needed_levels(config: PretrainConfig) -> Callable[[int], tuple[str, ...]] | None:
    """Which labelled batches outer iteration t reads, for `OuterBatches.needed`; data workers can pickle the function.

    None, everything, if ``levels.warmup_margin`` leaves the start of φ open: workers are ahead of the run. Iterations
    at which a hook may look at the labelled batches (logs, pictures, checkpoints, probes) count as readers.
    """
    levels, train = config.levels, config.train
    if levels.warmup_margin:
        return None
    intervals = (PROBE_INTERVAL, train.log_interval, train.picture_interval, train.checkpoint_interval)
    joint = is_joint(config.feedback["type"])
    return partial(_levels_at, begin=levels.warmup, every=levels.upper_every, joint=joint, intervals=intervals)
