"""Counter-based random numbers: every draw is a function of a key, never of how many draws came before.

A sample's order, crop and mask noise depend on (seed, stream, epoch, index) alone, so they are the same for any
number of workers or processes and after any interruption; there is no generator state to save.
The mixing function is SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014), written on int64 tensors, whose
multiplication wraps around modulo 2**64; it gives the same bits on every device.

Libraries draw from the global generators: timm, torchvision and mmcv from those of Python, NumPy and torch, layers from
torch's. `seeded` makes these functions of a key, too, and so does ``torch.manual_seed(key)`` before a training step.
"""

import hashlib
import operator
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) shift; ``>>`` on int64 copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _int64(x: Tensor | int) -> Tensor:
    """As int64: narrower integers would wrap around modulo 2**8 or 2**32 and lose bits; floats are the caller's bug."""
    x = torch.as_tensor(x)
    if x.is_floating_point():
        raise TypeError(f"random keys are integers, not {x.dtype}")
    return x.to(torch.int64)


def root_key(*parts: int | str) -> int:
    """A 63-bit key from names and numbers, e.g. ``root_key(seed, "lower")``; stable across runs and machines.

    Integers count by value: ``numpy.int64(3)`` gives the key of ``3``.
    """
    plain = tuple(part if isinstance(part, str) else operator.index(part) for part in parts)
    digest = hashlib.blake2b(repr(plain).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def fold(keys: Tensor | int, values: Tensor | int) -> Tensor:
    """Derive new int64 keys from ``keys`` and ``values`` (broadcast), e.g. ``fold(fold(root, epoch), index_B)``."""
    keys, values = _int64(keys), _int64(values)
    return _mix(_mix(keys + _GOLDEN) + values * _GOLDEN)


def uniform(keys: Tensor, n: int, salt: int = 0) -> Tensor:
    """Uniform float32 numbers in (0, 1), shape ``keys.shape + (n,)``; the open interval keeps logarithms finite.

    ``salt`` separates independent uses of one key (crop, mask, dropout).
    """
    draws = torch.arange(n, device=keys.device)
    bits = fold(fold(keys, salt).unsqueeze(-1), draws)
    return (_shift_right(bits, 41).to(torch.float32) + 0.5) / (1 << 23)


def permutation(key: int, n: int) -> Tensor:
    """A permutation of ``range(n)``, shape (n,), int64: indices sorted by their keys."""
    return torch.argsort(fold(key, torch.arange(n)), stable=True)


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Run the block with Python's, NumPy's and torch's global CPU generators seeded from ``key``, then restore them.

    Any int64 will do, also a negative one. About 0.1 ms. The generators are the process's: not for concurrent threads.
    """
    word = key & (2**64 - 1)  # random.seed takes -k for k
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    random.seed(word)
    # With the same two words NumPy would repeat Python's numbers, and the crop would decide the operations drawn.
    np.random.seed([word & 0xFFFFFFFF, word >> 32, 1])  # noqa: NPY002
    torch.default_generator.manual_seed(word)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])
