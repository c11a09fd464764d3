"""One step of Adam: the lower inverse Hessian is the diagonal by which Adam scales a gradient.

    g_φ = −(∂²L_I/∂φ∂θ) P v,   P = diag(1 / (√ŝ + ε)),   ŝ = s / (1 − β₂^t)

θ does not move along −∂L_I/∂θ but along −P ∂L_I/∂θ, so P v, not v, is what one step of it makes of v; ŝ, the running
mean of squared gradients, is held constant (its own dependence on φ is of the order 1 − β₂). With P = 1 this is
``one_step``. Source: Choe et al., "Making Scalable Meta Learning Practical", NeurIPS 2023 (algorithmic adaptation).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlomae.common.errors import ConfigError

from .batches import Batch
from .encoder import Encoded
from .implicit import Hypergradient
from .one_step import one_step
from .params import Params, Reduce, keep
from .problem import ThreeLevelProblem
from .response import Paths


class AdamPreconditioner:
    """``P(v)`` for a dict v on entries of ``theta``, from the state that Adam or AdamW keeps of them.

    A parameter that has not been stepped yet is left as it is. Reads the state at every call; no host synchronisation.
    Raises ConfigError for an optimizer without second moments.
    """

    def __init__(self, optimizer: Optimizer, theta: Params) -> None:
        self.optimizer, self.theta = optimizer, theta
        self.settings: dict[int, tuple[float, float]] = {}
        for group in optimizer.param_groups:
            if "betas" not in group or "eps" not in group:
                raise ConfigError("solver='sama' needs Adam or AdamW on theta: this optimizer keeps no second moments")
            for p in group["params"]:
                self.settings[id(p)] = (float(group["betas"][1]), float(group["eps"]))

    def __call__(self, v: Params) -> Params:
        return {name: self._scaled(self.theta[name], t) for name, t in v.items()}

    def _scaled(self, parameter: Tensor, t: Tensor) -> Tensor:
        state = self.optimizer.state.get(parameter, {})
        if "exp_avg_sq" not in state:
            return t
        beta, eps = self.settings[id(parameter)]
        step = torch.as_tensor(state["step"], dtype=torch.float64)
        correction = (1.0 - beta**step).to(t)
        scaled: Tensor = t / ((state["exp_avg_sq"] / correction).sqrt() + eps)
        return scaled


def sama(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    precondition: Reduce | None = None,
    reduce: Reduce | None = None,
    smooth: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
    rate: float = 1.0,
    encoded_head: Encoded | None = None,
) -> Hypergradient:
    """g_φ, a dict like φ; other options as in ``implicit``.

    Args:
        precondition: v → P v, an ``AdamPreconditioner`` of the optimizer that moves θ, applied after ``smooth``; None
            is P = 1.

    Raises:
        ConfigError: unknown ``paths``; batches that do not divide into ``chunks``.
    """
    average, scaled = smooth or keep, precondition or keep
    return one_step(
        problem,
        theta,
        omega,
        phi,
        lower_batch=lower_batch,
        head_batch=head_batch,
        upper_batch=upper_batch,
        reduce=reduce,
        smooth=lambda v: scaled(average(v)),
        chunks=chunks,
        paths=paths,
        rate=rate,
        encoded_head=encoded_head,
    )
