"""When a checkpoint is due."""

from __future__ import annotations

import re
import time

from amdim.errors import UsageError


class CheckpointInterval:
    """Due every N steps ("500") or every N minutes ("30m")."""

    def __init__(self, every: str) -> None:
        match = re.fullmatch(r"([1-9]\d*)(m?)", every)
        if not match:
            raise UsageError(f"--save-every {every}: give a number of steps, as in 500, or of minutes, as in 30m")
        self.every, self.minutes = int(match[1]), bool(match[2])
        self.last = time.monotonic()

    def __call__(self, step: int) -> bool:
        if not self.minutes:
            return step % self.every == 0
        due = time.monotonic() - self.last >= 60 * self.every
        if due:
            self.last = time.monotonic()
        return due
