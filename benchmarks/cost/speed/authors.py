"""The authors' scheme as a cost model: one outer iteration with two paths, each with finite differences of its own.

    direct path    v₁ = ∂L_III/∂θ                                                      one encoder backward
    head path      v₂ = −[∂L_II/∂θ(ω + ε g) − ∂L_II/∂θ(ω − ε g)] / 2ε,  g = ∂L_III/∂ω    two encoder passes and back
    each path      g_φ += −[∂L_I/∂φ(θ + ε v) − ∂L_I/∂φ(θ − ε v)] / 2ε                    two lower forwards

with ε = 0.01/‖·‖. It is written from the description of the method (MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128)
and from how general libraries for multilevel optimisation work, which determines its cost:

- nothing is shared: the head's step, L_III and every difference run the encoder again, with its graph;
- the graph of L_III stays until the last path has used it, and both losses of a difference are held until it is taken:
  a gradient in φ or ω frees only its own part of the graph, so the encoder's activations stay;
- parameters are moved in place to +ε and −ε and back; ε and every loss of a step are read back to the host.

The graphs of the K steps on θ are freed after each step, the cheaper interpretation. The mask is kept fixed in the
differences, as in `mlomae.multilevel.solvers.finite_difference`, whose result this one equals (tests).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlomae.pretraining.losses import features, head, level_problem, lower
from mlomae.pretraining.pretrainer import Pretrainer

EPSILON = 0.01


class AuthorsScheme:
    """Trains the modules of a `Pretrainer`; ``optimizers`` as for `OuterStep`."""

    def __init__(self, model: Pretrainer, optimizers: Any) -> None:
        self.model, self.optimizers = model, optimizers
        self.levels = model.level_parameters()

    def __call__(self, lower_batches: list[dict[str, Any]], head: dict[str, Any], upper: dict[str, Any]) -> None:
        """One outer iteration: K steps on θ, one on ω, one on φ."""
        *first, last = lower_batches
        for batch in first:
            self._descend("theta", self._lower(batch))
        last = self.freeze(last)
        self._descend("theta", self._lower(last))
        self._descend("omega", self._head(head))
        self._apply("phi", self.hypergradient(last, head, upper).values())

    def freeze(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its mask frozen at the current parameters."""
        fix = level_problem(self.model).fix
        assert fix is not None
        with torch.no_grad(), self.model.autocast():
            return fix(self.levels["theta"], self.levels["phi"], batch)

    def hypergradient(self, last: dict[str, Any], head: dict[str, Any], upper: dict[str, Any]) -> dict[str, Tensor]:
        """g_φ as a dict like φ, the sum of both paths."""
        theta, omega, phi = (list(params.values()) for params in self.levels.values())
        loss = self._head(upper)
        v = _gradient(loss, theta, retain_graph=True)
        direct = _difference(theta, v, lambda: self._lower(last), phi)
        g = _gradient(loss, omega)
        v = _difference(omega, g, lambda: self._head(head), theta)
        through_head = _difference(theta, v, lambda: self._lower(last), phi)
        return {k: a + b for k, a, b in zip(self.levels["phi"], direct, through_head, strict=True)}

    def _lower(self, batch: dict[str, Any]) -> Tensor:
        with self.model.autocast():
            return lower(self.model, batch)

    def _head(self, batch: dict[str, Any]) -> Tensor:
        with self.model.autocast():
            return head(self.model, features(self.model, batch), batch)

    def _descend(self, level: str, loss: Tensor) -> None:
        loss.item()
        self._apply(level, _gradient(loss, list(self.levels[level].values())))

    def _apply(self, level: str, gradients: Iterable[Tensor]) -> None:
        for p, g in zip(self.levels[level].values(), gradients, strict=True):
            p.grad = g
        optimizer: Optimizer = self.optimizers[level]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _gradient(loss: Tensor, wrt: list[Tensor], retain_graph: bool = False) -> list[Tensor]:
    return list(torch.autograd.grad(loss, wrt, retain_graph=retain_graph, materialize_grads=True))


def _difference(
    params: list[Tensor], vector: list[Tensor], loss_of: Callable[[], Tensor], wrt: list[Tensor]
) -> list[Tensor]:
    """−(∂²loss/∂wrt∂params) · vector by a central difference along ``vector``; ``params`` end where they began."""
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in vector]))
    epsilon = EPSILON / max(length.item(), 1e-12)
    _move(params, vector, epsilon)
    loss_above = loss_of()
    above = _gradient(loss_above, wrt)
    _move(params, vector, -2 * epsilon)
    loss_below = loss_of()
    below = _gradient(loss_below, wrt)
    _move(params, vector, epsilon)
    return [(b - a) / (2 * epsilon) for a, b in zip(above, below, strict=True)]


@torch.no_grad()
def _move(params: list[Tensor], vector: list[Tensor], step: float) -> None:
    for p, v in zip(params, vector, strict=True):
        p.add_(v, alpha=step)
