"""Devices and ranks: where a process trains, in which precision, and the mean over all processes."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce_params, broadcast_object_list, get_world_size, is_distributed, is_main_process
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mlomae.common.errors import MlomaeError, TrainingError
from mlomae.common.ownership import owned


def join_process_group() -> None:
    """Under ``torchrun``, join the other processes: with NCCL if there is a GPU, else with gloo."""
    if "LOCAL_RANK" not in os.environ or is_distributed():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


@contextmanager
def owned_by_run(work_dir: Path) -> Iterator[None]:
    """`owned` for all processes of ``torchrun``, which join each other here; the first one has the lock.

    What it raises is raised on all.
    """
    join_process_group()
    failed: list[Exception | None] = [None]
    with ExitStack() as stack:
        if is_main_process():
            try:
                stack.enter_context(owned(work_dir))
            except (MlomaeError, OSError) as error:
                failed = [error]
        broadcast_object_list(failed)
        if failed[0] is not None:
            raise failed[0]
        yield


def training_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of nested dicts and lists; anything else in them stays as it is."""
    return tree_map_only(Tensor, lambda t: t.to(device, non_blocking=True), batch)


def mean_over_ranks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average a dict of gradients over data-parallel ranks: steps call it themselves, there is no DDP wrapper."""
    if get_world_size() == 1:
        return tensors  # copies would cost a tenth of a small step
    copies = {name: t.detach().clone() for name, t in tensors.items()}
    all_reduce_params(list(copies.values()), op="mean")
    return copies


@torch.no_grad()
def require_bf16(layer: nn.Linear, context: AbstractContextManager[Any]) -> None:
    """Raise TrainingError if ``layer``, under the autocast ``context`` of a step, does not compute in bf16."""
    with context:
        dtype = layer(torch.zeros(1, layer.in_features, device=layer.weight.device)).dtype
    if dtype != torch.bfloat16:
        raise TrainingError(
            f"train.amp='bf16' is not active (layers compute in {dtype}); set train.amp='none', "
            "in another --work-dir if the run has begun"
        )
