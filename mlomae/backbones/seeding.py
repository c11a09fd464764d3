"""Global random generators as functions of a counter key: what libraries draw from them is then resumable.

timm, torchvision and mmcv draw from the global generators of python, numpy and torch; layers draw from torch's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Run the block with python's, numpy's and torch's global CPU generators seeded from ``key``, then restore them.

    Any int64 will do, also a negative one. About 0.1 ms. The generators are the process's: not for concurrent threads.
    """
    word = key & (2**64 - 1)  # random.seed takes -k for k
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    random.seed(word)
    # With the same two words numpy would repeat python's numbers, and the crop would decide the operations drawn.
    np.random.seed([word & 0xFFFFFFFF, word >> 32, 1])  # noqa: NPY002
    torch.default_generator.manual_seed(word)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])


def seed_step(key: int) -> None:
    """Set torch's generators on all devices, so that drop path and dropout of the next step depend on ``key`` alone.

    Call it before each training step with a key of (seed, iteration, rank): a resumed run then has the bits of one
    that was never interrupted. The draws are a batch's, so another number of ranks or batch size draws others. ``key``:
    63 bits, e.g. ``root_key(seed, "drop", iteration, rank)`` of `mlomae.common.random_keys`.
    """
    torch.manual_seed(key)
