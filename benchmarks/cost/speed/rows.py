"""The rows of the speed benchmark: what one outer iteration of each is, as a function without arguments.

Ours are those of a real run, `PretrainStep` with its optimizers; the other methods get the same sizes, data and AdamW.
A row of plain MAE counts K steps as one outer iteration. Rows from files read JPEG images, each tool with its own
loader and augmentation (a crop of 20 to 100 % of the image, bicubic, half of them mirrored) and one worker process.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.cost.loading.loaders import ENDLESS, LOADERS, stream_of
from benchmarks.cost.speed.authors import AuthorsScheme
from benchmarks.cost.speed.peers import PEERS
from benchmarks.cost.speed.setting import LOWER_STEPS, UPPER_EVERY, Setting
from mlomae.common.errors import ConfigError
from mlomae.common.precision import bf16_unit
from mlomae.data import OuterBatches
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.optim import build_optimizers, parameter_groups
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.step import PretrainStep

Step = Callable[[], Any]
MATMUL = "matmul"  # the machine's rate, measured in the same rounds
WORKERS = 1  # of a row that reads files


@dataclass(frozen=True)
class Row:
    """``levels``: whether it uses a head and an upper batch; ``flops_of``: the row that has the same operations;
    ``peer``: whose MAE it is, of `PEERS`, None is ours; ``amp``: its precision, None is the setting's and "auto" what
    a run of ours chooses; ``files``: whether its images come from files; ``iterations``: those in a call of the step,
    where they are not alike; ``graphs``: whether what is compiled is replayed as CUDA graphs."""

    title: str
    levels: bool = False
    compiled: bool = False
    flops_of: str | None = None
    peer: str | None = None
    amp: str | None = None
    files: bool = False
    iterations: int = 1
    graphs: bool = False


ROWS = {
    "mae": Row("plain MAE, 2 steps"),
    "authors": Row("authors' scheme (two paths, finite differences)", levels=True),
    "one_step": Row("one_step", levels=True),
    "pooled": Row(f"mask pooling, one step on φ in {UPPER_EVERY} iterations", levels=True, iterations=UPPER_EVERY),
    "mae_compiled": Row("plain MAE, torch.compile", compiled=True, flops_of="mae"),
    "one_step_compiled": Row("one_step under torch.compile", levels=True, compiled=True, flops_of="one_step"),
    "mae_graphs": Row("plain MAE, CUDA graphs", compiled=True, flops_of="mae", graphs=True),
    "mae_lightly": Row("MAE of lightly, 2 steps", peer="lightly"),
    "mae_reference": Row("MAE, reference design, 2 steps", peer="reference"),
    "mae_bf16": Row("plain MAE in bf16", amp="bf16"),
    "mae_bf16_compiled": Row("plain MAE in bf16, torch.compile", compiled=True, flops_of="mae_bf16", amp="bf16"),
    "mae_lightly_bf16": Row("MAE of lightly in bf16", peer="lightly", amp="bf16"),
    "mae_reference_bf16": Row("MAE, reference design, in bf16", peer="reference", amp="bf16"),
    "files": Row("from files: plain MAE, its own precision", amp="auto", files=True),
    "files_lightly": Row("from files: MAE of lightly, its own loader", peer="lightly", files=True),
    "files_reference": Row("from files: reference design, timm's loader", peer="reference", files=True),
}
_LOADERS = {"lightly": "lightly", "reference": "timm"}  # of the peers


def build(name: str, setting: Setting, root: str = "") -> Step:
    """One outer iteration of row ``name``; ``root`` holds train/<class>/*.jpg for the rows from files.

    Raises ConfigError where it cannot run here, with the reason."""
    row = ROWS[name]
    if row.amp == "bf16" and setting.amp == "bf16":
        raise ConfigError("the setting itself is in bf16")
    if row.amp == "bf16" and not bf16_unit() and setting.name != "tiny":
        raise ConfigError("nothing here computes bfloat16 in hardware")
    torch.manual_seed(0)
    batches = setting.batches()
    if row.peer:
        model = PEERS[row.peer](setting).to(setting.device)
        images: Iterator[Tensor] = cycle(batch["image"] for batch in batches["lower"])
        if row.files:
            images, _ = LOADERS[_LOADERS[row.peer]](root, setting.model["img_size"], setting.batch, WORKERS)
        return _plain_steps(model, setting, images, row.amp)
    method = "pooled" if name == "pooled" else "mlomae" if row.levels else "mae"
    config = setting.config(method, row.compiled, row.amp, row.graphs)
    model = Pretrainer(config, setting.classes).to(setting.device).train()
    optimizers = build_optimizers(model.level_parameters(), config)
    if name == "authors":
        scheme = AuthorsScheme(model, optimizers)
        return lambda: scheme(batches["lower"], batches["head"], batches["upper"])
    step = PretrainStep(model, optimizers)
    if row.files:
        items = _own_files(setting, root)
        return lambda: step(to_device(next(items), torch.device(setting.device)), 0)
    data = batches if row.levels else {"lower": batches["lower"]}
    return lambda: [step(data, t) for t in range(row.iterations)]


def _own_files(setting: Setting, root: str) -> Iterator[dict[str, Any]]:
    """Batches of outer iterations, as a run of ours reads them."""
    stream = stream_of(root, setting.model["img_size"], cache=False)
    outer = OuterBatches(stream, batch_size=setting.batch, steps_per_outer=LOWER_STEPS)
    return iter(outer.load(0, ENDLESS, WORKERS))


def _plain_steps(model: nn.Module, setting: Setting, images: Iterator[Tensor], amp: str | None) -> Step:
    named: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    config = setting.config("mae").optim["theta"]
    groups = parameter_groups(named, config.weight_decay)
    optimizer = AdamW(groups, lr=config.lr, betas=tuple(config.betas), fused=True)
    half = (amp or setting.amp) == "bf16"

    def step() -> None:
        for batch in islice(images, LOWER_STEPS):
            with torch.autocast(setting.device, torch.bfloat16, enabled=half):
                loss = model(batch.to(setting.device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step
