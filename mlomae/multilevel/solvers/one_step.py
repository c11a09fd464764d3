"""One step of the lower level: H_θθ⁻¹ is the identity (``one_step``), Adam's scaling (``sama``) or 0 (``explicit``).

    g_φ = e − (∂²L_I/∂φ∂θ) P v,   v = ∂L_III/∂θ − (∂²L_II/∂θ∂ω) ∂L_III/∂ω,   e = ∂L_III/∂φ − (∂²L_II/∂φ∂ω) ∂L_III/∂ω
    one_step   P = 1
    sama       P = diag(1 / (√ŝ + ε)),   ŝ = s / (1 − β₂^t)
    explicit   P = 0

``one_step`` is MLO-MAE's approximation (Guo et al., TMLR 2025, arXiv 2402.18128): up to the factor lr·head_lr it
differentiates one gradient step of each lower level. Cost: one encoder forward and backward, and one forward-mode pass
through the lower model. Exact, where the authors take finite differences.

Under Adam θ does not move along −∂L_I/∂θ but along −P ∂L_I/∂θ, so that one step of it turns v into P v; ŝ, the running
mean of squared gradients, is held constant (its own dependence on φ is of the order 1 − β₂). Source: Choe et al.,
"Making Scalable Meta Learning Practical", NeurIPS 2023 (algorithmic adaptation).

The explicit part e, how L_III changes with φ at fixed θ, exists if the feedback pools features by the scores of φ
(``ThreeLevelProblem.pool``): patches whose features tell the labels apart get a higher score, and the lower level
weights or masks them by it. Alone it costs one encoder forward without a graph and does not wait for a lower step.
"""

from dataclasses import replace

import torch
from torch.optim import Optimizer

from mlomae.common.errors import ConfigError

from ..encoder import Encoded
from ..params import Params, Reduce, unchanged
from ..problem import Hypergradient, Point, register
from ..response import identity, implicit, respond


@register("one_step")
def one_step(
    at: Point, *, smooth: Reduce | None = None, rate: float = 1.0, encoded_head: Encoded | None = None
) -> Hypergradient:
    """The identity for both inverse Hessians; options as in ``implicit``."""
    return implicit(at, identity, identity, smooth=smooth, rate=rate, encoded_head=encoded_head)


@register("sama")
def sama(
    at: Point,
    *,
    precondition: Reduce | None = None,
    smooth: Reduce | None = None,
    rate: float = 1.0,
    encoded_head: Encoded | None = None,
) -> Hypergradient:
    """``precondition`` is v → P v, an ``AdamPreconditioner`` of the optimizer that moves θ, applied after ``smooth``;
    None is P = 1. Other options as in ``implicit``."""
    average, scaled = smooth or unchanged, precondition or unchanged
    return implicit(at, identity, identity, smooth=lambda v: scaled(average(v)), rate=rate, encoded_head=encoded_head)


@register("explicit")
def explicit(at: Point) -> Hypergradient:
    """The explicit part e alone; ``at.lower_batch`` is not used.

    Raises:
        ConfigError: a problem without ``pool``; batches that do not divide into ``at.chunks``.
    """
    if at.problem.pool is None:
        raise ConfigError("solver='explicit' needs a problem with pool: without it L_III depends on phi through theta")
    constant_features = replace(at.problem, features=torch.no_grad()(at.problem.features))
    found = respond(replace(at, problem=constant_features))
    return Hypergradient(at.average(found.explicit), found.loss_upper)


class AdamPreconditioner:
    """``P(v)`` for a dict v on entries of ``theta``, from the state that Adam or AdamW keeps of them.

    A parameter that has not been stepped yet is left as it is. Reads the state at every call; no host synchronisation.
    Raises ConfigError for an optimizer without second moments.
    """

    def __init__(self, optimizer: Optimizer, theta: Params) -> None:
        self.optimizer, self.theta = optimizer, theta
        if not all("betas" in group and "eps" in group for group in optimizer.param_groups):
            raise ConfigError("solver='sama' needs Adam or AdamW on theta: this optimizer keeps no second moments")
        self.groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}

    def __call__(self, v: Params) -> Params:
        scaled = {}
        for name, t in v.items():
            parameter = self.theta[name]
            state = self.optimizer.state.get(parameter, {})
            if "exp_avg_sq" in state:
                group = self.groups[id(parameter)]
                step = torch.as_tensor(state["step"], dtype=torch.float64)
                correction = (1.0 - group["betas"][1] ** step).to(t)
                t = t / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
            scaled[name] = t
        return scaled
