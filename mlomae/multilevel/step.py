"""One outer iteration of MLO-MAE: K steps on θ, some on ω, one on φ, in this order.

    θ ← θ − A_θ[∂L_I/∂θ]  (K times);   ω ← ω − A_ω[∂L_II/∂ω];   φ ← φ − A_φ[g_φ]

A are the optimizers' updates; g_φ is taken at the new θ and ω, on the last lower batch with the mask that the θ step
on it used. Source: MLO-MAE, Guo et al., TMLR 2025, arXiv 2402.18128.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlomae.common.errors import ConfigError
from mlomae.common.precision import full_precision, no_autocast_cache, wide

from .encoder import Encoded, encode
from .params import Batch, Params, Reduce, constants, gradient, leaves, norm, scale, split_batch, unchanged
from .problem import Point, ThreeLevelProblem, check_options, list_options, solve


@dataclass(eq=False)
class OuterStep:
    """The update rule above, driven by a loop: ``losses = step(lower_batches, head_batch, upper_batch)``.

    Args:
        theta, omega, phi: dicts of leaf parameters that ``optimizers["theta" | "omega" | "phi"]`` own and that are
            updated in place. With φ = {} only θ moves (plain MAE); with ω = {} the head has nothing to learn; a
            problem with a joint loss has ω = {}, takes no head steps and reports no ``loss_head``.
        lower_loss: replaces ``problem.lower`` in the θ steps (e.g. a compiled module); same signature, and it must
            read the very tensors in ``theta``.
        solver, solver_options: see ``hypergradient``; ``reduce`` and ``chunks`` are set here.
        head_steps: steps on ω in each iteration.
        reduce: averages a dict over data-parallel ranks; applied to every gradient. A loss that is not a mean over
            samples (``joint_loss``) has to see those of all ranks by itself.
        reduce_during: (θ, function that returns the gradient of these leaves) → that gradient as ``reduce`` averages
            it, for a reduction that begins before the last gradient is made. Not used with ``accumulate`` above 1.
        accumulate: equal chunks of each lower batch whose gradients are averaged.
        clip_grad: bound on the global norm of the gradient of θ.
        autocast: opened around every encoder and lower pass; do not call the step inside another autocast context.

    Raises:
        ConfigError: an unknown solver or option, a missing optimizer, a parameter that is not a leaf requiring
            gradients, a number out of range.
    """

    problem: ThreeLevelProblem
    theta: Params
    omega: Params
    phi: Params
    _: KW_ONLY
    optimizers: Mapping[str, Optimizer]
    lower_loss: Callable[[Params, Params, Batch], Tensor] | None = None
    solver: str = "one_step"
    solver_options: Mapping[str, Any] = field(default_factory=dict)
    head_steps: int = 1
    reduce: Reduce | None = None
    reduce_during: Callable[[Params, Callable[[], Params]], Params] | None = None
    accumulate: int = 1
    clip_grad: float | None = None
    autocast: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext

    def __post_init__(self) -> None:
        self.options = {"reduce": self.reduce, "chunks": self.accumulate, **self.solver_options}
        check_options(self.solver, self.options)
        for level, params in {"theta": self.theta, "omega": self.omega, "phi": self.phi}.items():
            if params and level not in self.optimizers:
                raise ConfigError(f"optimizers has no entry {level!r}")
            for name, p in params.items():
                if not (p.is_leaf and p.requires_grad):
                    raise ConfigError(f"{level}[{name!r}] is not a leaf requiring gradients: keep it out of the dict")
        if self.problem.joint_loss is not None and self.omega:
            raise ConfigError("a problem with joint_loss has no head to train: omega must be {}")
        if self.head_steps < 1 or self.accumulate < 1 or (self.clip_grad is not None and self.clip_grad <= 0):
            raise ConfigError("head_steps and accumulate must be at least 1, clip_grad positive or None")
        self.average = self.reduce or unchanged
        # The response can use the features of the last step on ω: θ does not change in between.
        self.shares_features = "encoded_head" in list_options(self.solver) and self.options.get("paths") != "direct"

    def __call__(
        self, lower_batches: Sequence[Batch], head_batch: Batch, upper_batch: Batch, update_phi: bool = True
    ) -> dict[str, Tensor]:
        """One iteration. Losses are 0-dim, detached, this rank's, before the update they belong to; no host sync.

        Args:
            lower_batches: one batch for each of the K steps on θ.
            head_batch: one batch for all steps on ω, or a ``list`` with one batch per step.
            update_phi: False leaves φ unchanged (warm-up), and ``upper_batch`` unused.

        Returns:
            ``loss_lower`` (mean of the K steps), ``loss_head`` (of the last step), ``loss_upper``, if evaluated.
        """
        if not lower_batches:
            raise ConfigError("lower_batches is empty: one outer iteration takes at least one step on theta")
        heads = head_batch if isinstance(head_batch, list) else [head_batch] * self.head_steps
        if self.phi and len(heads) != self.head_steps:
            raise ConfigError(f"a list of {len(heads)} head batches for head_steps={self.head_steps}")
        with no_autocast_cache():
            *first, last = lower_batches
            lower = [self._theta_step(batch) for batch in first]
            if self.phi and update_phi:
                last = self._freeze(last)
            lower.append(self._theta_step(last))
            losses = {"loss_lower": torch.stack(lower).mean()}
            encoded = None
            if self.phi and self.omega:
                if update_phi and self.shares_features:  # the response differentiates these features later
                    with self.autocast():
                        encoded = encode(self.problem, self.theta, heads[-1], self.accumulate)
                losses["loss_head"] = self._omega_steps(heads, encoded)
            if self.phi and update_phi:
                losses["loss_upper"] = self._phi_step(last, heads[-1], encoded, upper_batch)
        return losses

    def _freeze(self, batch: Batch) -> Batch:
        """The batch with the mask of the current θ and φ frozen, for both its θ step and the hypergradient."""
        if self.problem.fix is None:
            return batch
        with torch.no_grad(), self.autocast():
            return self.problem.fix(constants(self.theta), constants(self.phi), batch)

    def _theta_step(self, batch: Batch) -> Tensor:
        g: Params = {}
        values = []
        phi, lower = constants(self.phi), self.lower_loss or self.problem.lower
        during = self.reduce_during if self.accumulate == 1 else None
        for part in split_batch(batch, self.accumulate):
            with torch.enable_grad(), self.autocast():
                loss = lower(self.theta, phi, part)
            backward = partial(self._lower_gradient, loss)
            values.append(wide(loss.detach()))
            if during is not None:
                g = during(self.theta, backward)
            elif self.accumulate == 1:
                g = backward()
            else:  # into sums of its own: what autograd returns may share memory
                for k, t in backward().items():
                    g[k] = g[k].add_(t, alpha=1.0 / self.accumulate) if k in g else t / self.accumulate
        if during is None:
            g = self.average(g)
        if self.clip_grad is not None:
            g = scale((self.clip_grad / (norm(g) + 1e-6)).clamp(max=1.0), g)
        self._apply("theta", self.theta, g)
        return torch.stack(values).mean()

    def _lower_gradient(self, loss: Tensor) -> Params:
        """``∂loss/∂θ`` of the entries that the loss uses; its graph is freed."""
        found = torch.autograd.grad(loss, list(self.theta.values()), allow_unused=True)
        return {k: t for k, t in zip(self.theta, found, strict=True) if t is not None}

    def _omega_steps(self, batches: Sequence[Batch], encoded: Encoded | None) -> Tensor:
        """The loss of the last step; ``encoded`` are the features of the last batch, if they are known already."""
        previous: Batch = None
        for batch in batches:
            if encoded is not None and batch is batches[-1]:
                z = encoded.z.detach()
            elif batch is not previous:
                with torch.no_grad(), self.autocast():
                    z = wide(self.problem.features(constants(self.theta), batch))
            previous = batch
            omega = leaves(self.omega)
            with torch.enable_grad(), full_precision(z.device):
                pooled = self.problem.pooled(self.theta, constants(self.phi), z, batch)
                loss = self.problem.head_loss(omega, pooled, batch)
                self._apply("omega", self.omega, self.average(gradient(loss, omega)))
        return loss.detach()

    def _phi_step(self, lower_batch: Batch, head_batch: Batch, encoded: Encoded | None, upper_batch: Batch) -> Tensor:
        options = self.options if encoded is None else {**self.options, "encoded_head": encoded}
        at = Point(self.problem, self.theta, self.omega, head_batch, upper_batch, self.phi, lower_batch)
        with self.autocast():
            found = solve(at, self.solver, options)
        self._apply("phi", self.phi, found.g_phi)
        return found.loss_upper

    def _apply(self, level: str, params: Params, g: Params) -> None:
        for name, p in params.items():
            p.grad = _laid_out(g[name], p) if name in g else None
        self.optimizers[level].step()
        self.optimizers[level].zero_grad(set_to_none=True)


def _laid_out(g: Tensor, p: Tensor) -> Tensor:
    """``g`` with the strides of ``p``, copied if it has others: fused optimizers read both in the order of memory."""
    return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
