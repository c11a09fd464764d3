"""Unrolling: differentiate K gradient steps on θ and M gradient steps on ω exactly.

    θ_{k+1} = θ_k − lr·∂L_I/∂θ(θ_k, φ),   ω_{m+1} = ω_m − head_lr·∂L_II/∂ω(ω_m, θ_K),   g_φ = dL_III(θ_K, ω_M)/dφ

Starts at the given θ and ω and leaves them unchanged. Memory grows with K + M, second derivatives of everything
included: for small models and as a yardstick (Franceschi et al., ICML 2017).
"""

import torch

from mlomae.common.errors import ConfigError
from mlomae.common.precision import full_precision, twice_differentiable, wide

from ..params import axpy, constants, gradient, leaves, split_batch
from ..problem import Hypergradient, Point, register
from ..response import joint_value


@register("unrolled")
def unrolled(
    at: Point, *, steps: int | None = None, lr: float = 0.1, head_steps: int = 1, head_lr: float = 0.1
) -> Hypergradient:
    """The total derivative of L_III after K steps on θ and M steps on ω.

    ``at.lower_batch`` is a batch for every step, or a ``list`` with one batch per step. Of ``at.paths``, ``direct``
    holds ω_M constant and ``head`` holds θ_K constant where L_III takes it directly; with a joint loss there is no ω,
    and ``direct`` holds the head batch's features constant.

    Args:
        steps, lr: K (None: the length of the list, or 1) and the rate of plain SGD on θ.
        head_steps, head_lr: M and the rate of plain SGD on ω.

    Raises:
        ConfigError: a list whose length is not ``steps``; a value out of range; ``at.reduce``, because averaging over
            ranks would have to be differentiated too.
    """
    if at.reduce is not None:
        raise ConfigError("solver='unrolled' runs in one process only: choose another solver under data parallelism")
    problem, given = at.problem, at.lower_batch
    batches = given if isinstance(given, list) else [given] * (1 if steps is None else steps)
    if not batches or (steps is not None and steps != len(batches)) or head_steps < 0:
        raise ConfigError(f"unrolled has steps={steps}, head_steps={head_steps} and {len(batches)} lower batches")
    theta, omega, phi = leaves(at.theta), leaves(at.omega), leaves(at.phi)
    with torch.enable_grad(), twice_differentiable():
        for batch in batches:
            first, *others = [problem.lower(theta, phi, part) for part in split_batch(batch, at.chunks)]
            loss = sum(others, start=first) / at.chunks
            theta = axpy(-lr, gradient(loss, theta, create_graph=True), theta)
        z_head = wide(problem.features(theta, at.head_batch)) if omega or problem.joint_loss is not None else None
        if z_head is not None:
            with full_precision(z_head.device):
                z_head = problem.pooled(theta, phi, z_head, at.head_batch)
                for _ in range(head_steps if omega else 0):
                    loss = problem.head_loss(omega, z_head, at.head_batch)
                    omega = axpy(-head_lr, gradient(loss, omega, create_graph=True), omega)
        if at.paths == "direct":
            omega = constants(omega)
        z = wide(problem.features(constants(theta) if at.paths == "head" else theta, at.upper_batch))
        with full_precision(z.device):
            z = problem.pooled(theta, phi, z, at.upper_batch)
            if problem.joint_loss is not None:
                assert z_head is not None
                loss_upper = joint_value(at, z_head, z)
            else:
                loss_upper = problem.head_loss(omega, z, at.upper_batch)
        return Hypergradient(constants(gradient(loss_upper, phi)), loss_upper.detach())
