"""Memory that is used again as soon as nobody looks at it: the system zeroes fresh memory, page by page, before it is written.

A tensor over a NumPy array holds that array until its storage is freed, with every view of it; then the memory comes back here.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor


class BufferPool:
    """Float32 tensors over memory that is kept: as much of it as was ever in use at a time."""

    def __init__(self) -> None:
        self.free: dict[tuple[int, ...], list[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of any contents. Its memory is taken again only when no tensor or array is left that shares it."""
        free = self.free.setdefault(shape, [])
        memory = free.pop() if free else np.empty(shape, np.float32)
        lent = memory.view()
        weakref.finalize(lent, free.append, memory).atexit = False
        return torch.from_numpy(lent)
