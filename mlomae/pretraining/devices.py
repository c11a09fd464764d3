"""Devices and ranks: where a process trains, in which precision, what ranks have in common."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_world_size,
    is_distributed,
    is_main_process,
)
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mlomae.common.errors import ConfigError, MlomaeError, TrainingError
from mlomae.common.ownership import owned
from mlomae.placing import check_writable
from mlomae.pretraining.stopping import FOREVER, stoppable
from mlomae.pretraining.watch import START, Watch

_LEGIBLE = 40  # characters of a value that an error quotes
_watch: Watch | None = None  # of this process, once it has joined others


def join_process_group() -> None:
    """Under ``torchrun``, join the other processes: with NCCL if there is a GPU, else with gloo.

    Raises TrainingError if some of them do not start."""
    global _watch
    if "LOCAL_RANK" not in os.environ or is_distributed():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        torch.distributed.init_process_group(backend)
        return
    try:
        store, rank, size = next(torch.distributed.rendezvous("env://", timeout=START))
    except torch.distributed.DistError as error:
        raise TrainingError(
            f"the processes of this run have not all met within {START}; start all of them, with MASTER_ADDR and "
            "MASTER_PORT of the first"
        ) from error
    address, attempt = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), "TORCHELASTIC_RESTART_COUNT"
    _watch = Watch(rank, size, *address, os.environ.get(attempt, "0"))
    store.set_timeout(FOREVER)
    with _watch.run():
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=FOREVER)


@contextmanager
def owned_by_run(work_dir: Path, *claims: tuple[Path, Path]) -> Iterator[None]:
    """`owned` for all processes of ``torchrun``, which join each other here; the first one has the lock.

    ``claims``: places of records and their locks. What it raises is raised on all. Within the block signals stop the
    run (`stoppable`), and a process that fails or is lost ends the others (`Watch`).
    """
    failed: list[Exception | None] = [None]
    with ExitStack() as stack:
        stack.enter_context(stoppable())
        join_process_group()
        if _watch is not None:
            stack.enter_context(_watch.run())
        if is_main_process():
            try:
                for place, _ in claims:
                    check_writable(place.parent, place.name)
                for place, lock in ((work_dir, None), *claims):
                    stack.enter_context(owned(place, lock))
            except (MlomaeError, OSError) as error:
                failed = [error]
        broadcast_object_list(failed)
        if failed[0] is not None:
            raise failed[0]
        yield


def check_same_on_ranks(facts: Mapping[str, Any]) -> None:
    """Raise ConfigError, on all ranks, if ``facts`` that have to be the same on all of them are not.

    The error names those that differ and the ranks. Values may be anything with a ``repr``.
    """
    if get_world_size() == 1:
        return
    own = {key: text if len(text := repr(value)) <= _LEGIBLE else _digest(text) for key, value in facts.items()}
    found: list[dict[str, str]] = all_gather_object(own)
    shown = []
    for key in dict.fromkeys(key for facts_of_rank in found for key in facts_of_rank):
        ranks: dict[str, list[int]] = {}
        for rank, facts_of_rank in enumerate(found):
            ranks.setdefault(facts_of_rank.get(key, "missing"), []).append(rank)
        if len(ranks) > 1:
            where = lambda r: f"rank{'s' * (len(r) > 1)} {', '.join(map(str, r))}"  # noqa: E731
            shown.append(f"{key} is " + " and ".join(f"{value} on {where(r)}" for value, r in ranks.items()))
    if shown:
        more = f", and {len(shown) - 3} more" if len(shown) > 3 else ""
        raise ConfigError(
            f"the processes of this run differ: {'; '.join(shown[:3])}{more}; start all of them with the same command, "
            "data and files"
        )


def _digest(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()[:12]} (digest)"


@torch.no_grad()
def weights_digest(module: nn.Module) -> str:
    """Of all parameters and buffers, by their bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for t in module.state_dict().values():
        if isinstance(t, Tensor):
            digest.update(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def training_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of nested dicts and lists; anything else in them stays as it is."""
    return tree_map_only(Tensor, lambda t: t.to(device, non_blocking=True), batch)


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
