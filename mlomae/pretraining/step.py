"""One outer iteration of pretraining on the batches of `mlomae.data.OuterBatches`, as the trainer's step."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from mmengine.dist import get_world_size
from torch import Tensor
from torch.optim import Optimizer

from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import root_key
from mlomae.multilevel import AdamPreconditioner, OuterStep
from mlomae.pretraining.checks import check_coupled
from mlomae.pretraining.devices import require_bf16
from mlomae.pretraining.feedback_gate import FeedbackGate, moves_phi
from mlomae.pretraining.losses import LowerTerms, level_problem, lower_terms
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.reduction import MeanWhile, mean_over_ranks

Batch = dict[str, Any]


class PretrainStep:
    """``losses = step(data, t)`` updates all levels of ``model`` (`mlomae.multilevel.OuterStep`).

    Until the gate lets φ begin, masks are random and φ stays as it is; from then on it takes a step in every
    ``levels.upper_every``-th iteration. ``gate`` is None where the mask has nothing to learn from feedback.

    Args:
        optimizers: of the levels that have parameters.

    Raises TrainingError if mixed precision was asked for but the blocks do not compute in bf16, ConfigError for chunks
    of several processes that are not those of one and would be compared within, and for CUDA graphs without a device.
    """

    def __init__(self, model: Pretrainer, optimizers: Mapping[str, Optimizer]) -> None:
        self.model, levels, train = model, model.config.levels, model.config.train
        check_coupled(model.config, get_world_size())
        self.gate: FeedbackGate | None = None
        if model.mask.trainable:
            self.gate = FeedbackGate(-1 if levels.warmup_margin else levels.warmup)
        if train.amp != "none":
            block = model.mae.encoder.blocks[0]
            require_bf16(block.mlp.fc1, model.autocast())  # type: ignore[union-attr, arg-type]
        options: dict[str, Any] = dict(levels.solver_options)
        if model.average:
            options["smooth"] = model.average
        parameters = model.level_parameters()
        if levels.solver == "sama" and model.mask.trainable:
            options["precondition"] = AdamPreconditioner(optimizers["theta"], parameters["theta"])
        problem, forward = level_problem(model), partial(lower_terms, model)
        if train.compile:
            problem = replace(problem, features=compiled(problem.features, train.cuda_graphs))
            forward = compiled(forward, train.cuda_graphs)
        self._forward: Callable[[Batch], LowerTerms] = forward
        self._added: list[Tensor] = []  # of the steps on θ of one iteration, and their chunks
        self._errors: list[Tensor] = []
        self._outer = OuterStep(
            problem,
            **parameters,
            optimizers=optimizers,
            lower_loss=self._lower_loss,
            solver=levels.solver,
            solver_options=options,
            head_steps=levels.head_steps,
            reduce=mean_over_ranks if get_world_size() > 1 else None,
            reduce_during=MeanWhile() if get_world_size() > 1 else None,
            accumulate=train.accumulate,
            clip_grad=model.config.optim["theta"].clip_grad,
            autocast=model.autocast,
        )

    def __call__(self, data: dict[str, Any], t: int) -> dict[str, Tensor]:
        """Losses of outer iteration ``t``, each before the update it belongs to, 0-dim, detached, this rank's.

        ``loss_lower`` is L_I and ``loss_beside`` what is added to it; ``reconstruction_error`` is the unweighted error
        of the removed patches, comparable between methods; ``loss_head`` and ``loss_upper`` where these levels move.
        """
        if self.model.config.train.cuda_graphs:  # their outputs are overwritten in the next iteration, and not before
            torch.compiler.cudagraph_mark_step_begin()
        model, moves, random_masks = self.model, False, False
        model.set_progress(t)
        if self.gate is not None:
            moves = moves_phi(t, self.gate.begin, model.config.levels.upper_every)
            random_masks = not 0 <= self.gate.begin <= t
        numbered = enumerate(data["lower"], t * len(data["lower"]))
        lower = [{**batch, "ratio": self.ratio_of(number), "warmup": random_masks} for number, batch in numbered]
        head = data.get("head")
        if head is not None:
            head = {**head, "dropout_key": head["key"]}
        self._added, self._errors = [], []
        losses = self._outer(lower, head, data.get("upper"), moves)
        with torch.no_grad():
            model.mask.follow(model.mae, model.progress)
        if self._added:
            losses["loss_beside"] = torch.stack(self._added).mean()
            losses["loss_lower"] = losses["loss_lower"] - losses["loss_beside"]
        return {**losses, "reconstruction_error": torch.stack(self._errors).mean()}

    def ratio_of(self, number: int) -> float:
        """The share of patches to remove from the ``number``-th global lower batch."""
        return self.model.mask.batch_ratio(self.model.ratio, root_key(self.model.config.seed, "mask ratio", number))

    def _lower_loss(self, theta: dict[str, Tensor], phi: dict[str, Tensor], batch: Batch) -> Tensor:
        """L_I of a step on θ, at the module's own parameters: no `functional_call`. Solvers take the pure function, so
        that only the steps are recorded here."""
        loss, added, error = self._forward(batch)
        self._errors.append(error)
        if added is not None:
            self._added.append(added)
        return loss


def compiled(function: Any, cuda_graphs: bool = False) -> Any:
    """``function`` under torch.compile for the shapes of its first call; on a GPU kernels are chosen by measurement.

    With ``cuda_graphs`` they are replayed as CUDA graphs, whose outputs share memory: whoever calls ``function`` has to
    mark where an iteration begins. Raises ConfigError for them without a CUDA device."""
    if cuda_graphs and not torch.cuda.is_available():
        raise ConfigError("train.cuda_graphs needs a CUDA device; set train.cuda_graphs=False")
    mode = "max-autotune" if cuda_graphs else "max-autotune-no-cudagraphs" if torch.cuda.is_available() else None
    return torch.compile(function, dynamic=False, mode=mode)
