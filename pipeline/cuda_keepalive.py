"""Arrays of DALI's that a GPU may still be reading."""

from __future__ import annotations

import time
from collections import deque

import torch
from torch import Tensor

AHEAD = 4  # batches that the host may be ahead of the GPU: each holds its arrays


class KeepAlive:
    """Holds arrays until the GPU is past what was queued on them: their memory is DALI's, which does not know torch's queue."""

    waited = 0.0  # seconds, all of this process: no wait for data, though it is while data are asked for

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.queue: deque[tuple[torch.cuda.Event, tuple[Tensor, ...]]] = deque()

    def hold(self, *arrays: Tensor) -> None:
        """To be called when all that reads them is queued; on a CPU nothing is queued. Waits where the host is far ahead."""
        if self.device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.device))
            self.queue.append((event, arrays))
            while self.queue and self.queue[0][0].query():
                self.queue.popleft()
            if len(self.queue) > AHEAD:
                began = time.perf_counter()
                self.queue.popleft()[0].synchronize()
                KeepAlive.waited += time.perf_counter() - began

    def release(self) -> None:
        """Waits until the GPU is past all of it."""
        while self.queue:
            self.queue.popleft()[0].synchronize()
