"""The hook that probes the feedback: φ begins when it beats chance; where it does not, a warning names the remedy."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from mlomae.common.errors import ConfigError
from mlomae.config.schema import PretrainConfig
from mlomae.data import OuterBatches
from mlomae.feedback import is_joint
from mlomae.pretraining import loop
from mlomae.pretraining.warmup import ERRORS_TO_START, ERRORS_TO_WARN, chance_of, is_probe


@torch.no_grad()
def judge(model: Any, data: dict[str, Any]) -> tuple[float, int]:
    """Right predictions on the upper batch (of dense feedback the sum of the images' shares) and its size, over all
    ranks; waits for the device."""
    device = next(model.parameters()).device
    upper = loop.to_device(data["upper"], device)
    head = loop.to_device(data["head"], device) if model.feedback.joint else None
    with model.autocast():
        reference = None if head is None else model.feedback_tokens(head)
        scores = model.feedback.predict(model.feedback_tokens(upper), reference, head)
        correct_U = model.feedback.correct(scores, upper)
    right, judged = correct_U.sum(), torch.tensor(len(correct_U), device=device)
    for count in (right, judged):
        all_reduce(count)
    return right.item(), int(judged.item())


class FeedbackHook(Hook):
    """Probes the feedback, lets φ begin when it beats chance, and warns where it does not.

    Raises ConfigError if chance leaves no room for the margin.
    """

    priority = "HIGH"  # before the logger reads the values and the schedulers step

    def __init__(self, config: PretrainConfig, batches: OuterBatches, num_classes: int) -> None:
        self.config, self.margin = config, config.levels.warmup_margin
        self.chance = chance_of(batches, num_classes)
        assert batches.head is not None
        self.epoch_length = math.ceil(len(batches.head) / config.data.feedback_batch_size)
        if self.margin and 100.0 * self.chance.share + self.margin > 100.0:
            raise ConfigError(
                f"levels.warmup_margin {self.margin:g}: a constant prediction gets {100 * self.chance.share:.1f} % of "
                "the upper split right, so that no feedback can exceed it by so much; lower the margin"
            )

    def before_train(self, runner: Any) -> None:
        runner.message_hub.update_scalar("train/phi_started", runner.model.watch.begin)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if not is_probe(batch_idx):
            return
        watch, done = runner.model.watch, batch_idx + 1
        watch.add(*judge(runner.model, data_batch))
        ripe = self.config.levels.warmup <= done < runner.max_iters
        if watch.begin < 0 and ripe and watch.beats(self.chance, self.margin):
            watch.begin = done
            for scheduler in runner.param_schedulers["phi"]:
                scheduler.start = done
            runner.message_hub.update_scalar("train/phi_started", done)
            runner.logger.info(f"warm-up over after {done} outer iterations: {self._describe(*watch.recent())}")
        epoch = watch.epoch(done, self.epoch_length)
        if epoch is not None and epoch[0] - self.chance.share < ERRORS_TO_WARN * self.chance.error(epoch[1]):
            runner.logger.warning(
                f"the feedback stayed at chance for the epoch that ends at outer iteration {done}, so that a mask "
                f"would learn from noise: {self._describe(*epoch)}; {self._remedy(runner)}"
            )

    def after_train(self, runner: Any) -> None:
        if runner.model.watch.begin < 0:
            runner.logger.warning(
                "THE MASK NEVER LEARNED, this was a run with random masks: the feedback did not beat chance by "
                f"levels.warmup_margin={self.margin:g} points and {ERRORS_TO_START:g} standard errors; "
                f"{self._describe(*runner.model.watch.recent())}; {self._remedy(runner)}"
            )

    def _describe(self, share: float, judged: int) -> str:
        return (
            f"'{self.config.feedback['type']}' is right on {100 * share:.1f} % of {judged} upper images, "
            f"chance {100 * self.chance.share:.1f} %, its standard error {100 * self.chance.error(judged):.1f}"
        )

    def _remedy(self, runner: Any) -> str:
        kind = self.config.feedback["type"]
        ways = [] if is_joint(kind) else ["raise levels.head_steps"]
        ways.append("raise data.feedback_batch_size")
        if getattr(runner.model.feedback, "pooling", "") == "cls":
            ways.append("set feedback.pooling='avg'")
        if kind != "nca" and not runner.model.feedback.dense:
            ways.append("set feedback.type='nca'")
        return ", ".join([*ways, "lengthen levels.warmup"])
