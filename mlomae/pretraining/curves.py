"""The curves of a run's losses, short enough for its record: means over equal intervals of outer iterations.

Every loss of every iteration enters the mean of its interval, so a point is not a noisy sample, and the intervals
depend on the length of the run alone, not on how often it logs. The feedback's accuracy is that of its probes
(`mlomae.pretraining.feedback_gate`), on upper images that its head has not trained on.
"""

from typing import Any, TypedDict

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mlomae.common.errors import CheckpointError
from mlomae.common.structure import Number, check_structure
from mlomae.pretraining.feedback_gate import FeedbackGate, is_probe

POINTS = 100  # at most, in a record
DIGITS = 5  # significant ones
Curves = dict[str, list[Any]]


class _Curves(TypedDict):
    sums: dict[str, list[float]]
    terms: dict[str, list[Number]]


class LossCurves:
    """Sums of named values over intervals of a run of ``iterations`` outer iterations; a hook of the trainer.

    Values are summed on their device, where `add` never waits for them, until `settle` brings the sums to the host.
    Between the two the object has a state that `state_dict` lacks and `unsettled` has. The probes of ``gate`` become a
    curve, too; the hook that takes them comes first.
    """

    def __init__(self, iterations: int, gate: FeedbackGate | None = None) -> None:
        self.iterations, self.gate = iterations, gate
        self.width = -(-iterations // POINTS)
        self.points = -(-iterations // self.width)
        self._fresh: dict[str, Tensor] = {}  # sums since `settle`, (points,), of this rank
        self._sums: dict[str, list[float]] = {}  # before that, means over ranks
        self._terms: dict[str, list[int]] = {}

    def __call__(self, t: int, data: Any, losses: dict[str, Tensor], values: dict[str, float] | None) -> None:
        """Add the losses of iteration ``t``, and the probe of the feedback if there was one."""
        for name, loss in losses.items():
            self.add(t, name, loss)
        if self.gate is not None and is_probe(t):
            right, judged = self.gate.window[-1]
            self.add(t, "feedback_accuracy", losses["loss_lower"].new_tensor(100.0 * right), judged)
        if values is not None:  # the trainer has waited for the device anyway
            self.settle()

    def add(self, t: int, name: str, value: Tensor, terms: int = 1) -> None:
        """Let ``value``, 0-dim, the sum of ``terms`` values, enter the interval of outer iteration ``t``."""
        if name not in self._fresh:
            self._fresh[name] = torch.zeros(self.points, dtype=torch.float64, device=value.device)
            self._terms.setdefault(name, [0] * self.points)
        self._fresh[name][t // self.width].add_(value)
        self._terms[name][t // self.width] += terms

    def settle(self) -> None:
        """Average over ranks what was added since the last time; every rank must call it, and waits for its device."""
        if not self._fresh:
            return
        stacked = torch.stack(list(self._fresh.values()))
        all_reduce(stacked, op="mean")
        for name, fresh in zip(self._fresh, stacked.tolist(), strict=True):
            before = self._sums.get(name, [0.0] * self.points)
            self._sums[name] = [a + b for a, b in zip(before, fresh, strict=True)]
        self._fresh = {}

    def unsettled(self) -> dict[str, Tensor]:
        """Of this rank, what a checkpoint before the next `settle` keeps besides the state."""
        return {name: t.cpu() for name, t in self._fresh.items()}

    def load_unsettled(self, fresh: dict[str, Tensor]) -> None:
        self._fresh = dict(fresh)

    def state_dict(self) -> dict[str, Any]:
        zeros = {name: [0.0] * self.points for name in self._terms}  # of what no `settle` has seen yet
        return {"sums": zeros | self._sums, "terms": self._terms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`. Raises CheckpointError, naming the field, for values of another form."""
        check_structure(state, _Curves, "curves:")
        lengths = {len(values) for part in ("sums", "terms") for values in state[part].values()}
        if state["sums"].keys() != state["terms"].keys() or lengths - {self.points}:
            raise CheckpointError(f"curves: holds other than {self.points} sums and terms of each loss")
        self._fresh, self._sums, self._terms = {}, state["sums"], state["terms"]

    def means(self) -> Curves:
        """``iteration``, the number done at the end of each interval, and a list for every name: the mean over the
        interval, None where there was nothing to average. {} before anything was added."""
        if not self._sums:
            return {}
        ends = [min((i + 1) * self.width, self.iterations) for i in range(self.points)]
        means = {
            name: [float(f"{s / n:.{DIGITS}g}") if n else None for s, n in zip(sums, self._terms[name], strict=True)]
            for name, sums in self._sums.items()
        }
        return {"iteration": ends, **means}
