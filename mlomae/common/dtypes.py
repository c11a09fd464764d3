"""How many digits a number has."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(t: Tensor) -> Tensor:
    """``t`` in float32 where it is float16 or bfloat16, else ``t`` itself: for sums, and where close numbers must not
    become equal."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
