"""Batches that a GPU may still be reading."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor


class InUse:
    """Holds batches until the GPU is past what was queued on them: their memory is DALI's, which does not know torch's queue."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.queue: deque[tuple[torch.cuda.Event, tuple[Tensor, ...]]] = deque()

    def hold(self, *views: Tensor) -> None:
        """To be called before the next batch is asked for; on a CPU nothing is queued."""
        if self.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            self.queue.append((event, views))
            while self.queue[0][0].query() and len(self.queue) > 1:
                self.queue.popleft()
