"""Unrolling: differentiate K gradient steps on θ and M gradient steps on ω exactly.

    θ_{k+1} = θ_k − lr·∂L_I/∂θ(θ_k, φ),   ω_{m+1} = ω_m − head_lr·∂L_II/∂ω(ω_m, θ_K),   g_φ = dL_III(θ_K, ω_M)/dφ

Starts at the given θ and ω and leaves them as they are. Memory grows with K + M, second derivatives of everything
included: for small models and as a yardstick (Franceschi et al., ICML 2017).
"""

from __future__ import annotations

import torch

from mlomae.common.dtypes import wide
from mlomae.common.errors import ConfigError

from .batches import Batch
from .implicit import Hypergradient
from .modes import full_precision, twice_differentiable
from .params import Params, Reduce, axpy, constants, gradient, leaves
from .problem import ThreeLevelProblem
from .response import Paths, check_paths, joint_value


def unrolled(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    *,
    lower_batch: Batch,
    head_batch: Batch,
    upper_batch: Batch,
    steps: int | None = None,
    lr: float = 0.1,
    head_steps: int = 1,
    head_lr: float = 0.1,
    reduce: Reduce | None = None,
    chunks: int = 1,
    paths: Paths = "both",
) -> Hypergradient:
    """g_φ, a dict like φ: the total derivative of L_III after K steps on θ and M steps on ω.

    Args:
        lower_batch: a batch for every step, or a ``list`` with one batch a step.
        steps, lr: K (None: the length of the list, or 1) and the rate of plain SGD on θ.
        head_steps, head_lr: M and the rate of plain SGD on ω.
        chunks: equal parts over which L_I is averaged.
        paths: ``direct`` holds ω_M constant, ``head`` holds θ_K constant where L_III takes it directly. With a
            joint loss there is no ω: ``direct`` holds the head batch's features constant.

    Raises:
        ConfigError: a list of another length than ``steps``; a value out of range; ``reduce``, because averaging over
            ranks would have to be differentiated too.
    """
    check_paths(paths, omega, problem, head_batch)
    if reduce is not None:
        raise ConfigError("solver='unrolled' runs in one process only: choose another solver under data parallelism")
    batches = lower_batch if isinstance(lower_batch, list) else [lower_batch] * (1 if steps is None else steps)
    if not batches or (steps is not None and steps != len(batches)) or head_steps < 0:
        raise ConfigError(f"unrolled has steps={steps}, head_steps={head_steps} and {len(batches)} lower batches")
    theta, omega, phi = leaves(theta), leaves(omega), leaves(phi)
    with torch.enable_grad(), twice_differentiable():
        for batch in batches:
            loss = problem.mean_lower(theta, phi, batch, chunks)
            theta = axpy(-lr, gradient(loss, theta, create_graph=True), theta)
        if omega:
            omega = _unroll_head(problem, theta, omega, phi, head_batch, head_steps, head_lr)
        if paths == "direct":
            omega = constants(omega)
        z = wide(problem.features(constants(theta) if paths == "head" else theta, upper_batch))
        z_head = None if problem.joint_loss is None else wide(problem.features(theta, head_batch))
        with full_precision(z.device):
            z = problem.seen(theta, phi, z, upper_batch)
            if z_head is not None:
                z_head = problem.seen(theta, phi, z_head, head_batch)
                loss_upper = joint_value(problem, z_head, z, head_batch, upper_batch, paths)
            else:
                loss_upper = problem.head_loss(omega, z, upper_batch)
        return Hypergradient(constants(gradient(loss_upper, phi)), loss_upper.detach())


def _unroll_head(
    problem: ThreeLevelProblem,
    theta: Params,
    omega: Params,
    phi: Params,
    head_batch: Batch,
    head_steps: int,
    head_lr: float,
) -> Params:
    z = wide(problem.features(theta, head_batch))
    with full_precision(z.device):
        z = problem.seen(theta, phi, z, head_batch)
        for _ in range(head_steps):
            loss = problem.head_loss(omega, z, head_batch)
            omega = axpy(-head_lr, gradient(loss, omega, create_graph=True), omega)
    return omega
