"""The rows of the speed benchmark: what one outer iteration of each is, as a function without arguments.

Ours are those of a real run, `PretrainStep` with its optimizers; the other methods get the same sizes, data and AdamW.
A row of plain MAE counts K steps as one outer iteration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.cost.speed.authors import AuthorsScheme
from benchmarks.cost.speed.peers import PEERS
from benchmarks.cost.speed.setting import Setting
from mlomae.pretraining.optim import build_optimizers, parameter_groups
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.step import PretrainStep

Step = Callable[[], Any]
MATMUL = "matmul"  # the machine's rate, measured in the same rounds


@dataclass(frozen=True)
class Row:
    """``levels``: whether it uses a head and an upper batch; ``flops_of``: the row that has the same operations."""

    title: str
    levels: bool = False
    compiled: bool = False
    flops_of: str | None = None


ROWS = {
    "mae": Row("plain MAE, 2 steps"),
    "authors": Row("authors' scheme (two paths, finite differences)", levels=True),
    "one_step": Row("one_step", levels=True),
    "mae_compiled": Row("plain MAE, torch.compile", compiled=True, flops_of="mae"),
    "one_step_compiled": Row(
        "one_step, steps on θ under torch.compile", levels=True, compiled=True, flops_of="one_step"
    ),
    "mae_lightly": Row("MAE of lightly, 2 steps"),
    "mae_reference": Row("MAE, reference design, 2 steps"),
}


def build(name: str, setting: Setting) -> Step:
    """One outer iteration of row ``name``; raises ConfigError where it cannot run here, with the reason."""
    torch.manual_seed(0)
    batches = setting.batches()
    if name in PEERS:
        return _plain_steps(PEERS[name](setting).to(setting.device), setting, batches["lower"])
    config = setting.config("mlomae" if ROWS[name].levels else "mae", ROWS[name].compiled)
    model = Pretrainer(config, setting.classes).to(setting.device).train()
    optimizers = build_optimizers(model.level_parameters(), config)
    if name == "authors":
        scheme = AuthorsScheme(model, optimizers)
        return lambda: scheme(batches["lower"], batches["head"], batches["upper"])
    data = batches if ROWS[name].levels else {"lower": batches["lower"]}
    return partial(PretrainStep(model, optimizers), data, 0)


def _plain_steps(model: nn.Module, setting: Setting, lower: list[dict[str, Tensor]]) -> Step:
    named: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    config = setting.config("mae").optim["theta"]
    groups = parameter_groups(named, config.weight_decay)
    optimizer = AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)

    def step() -> None:
        for batch in lower:
            with torch.autocast(setting.device, torch.bfloat16, enabled=setting.amp == "bf16"):
                loss = model(batch["image"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step
