"""Ctrl-C and SIGTERM end a run after the step in hand, with its state saved; a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
from types import FrameType


class Stop:
    """Remembers the first signal; ``code`` is the exit code it asks for (130, 143), or None."""

    def __init__(self) -> None:
        self.code: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        self.code = 128 + number
        signal.signal(signal.SIGINT, signal.default_int_handler)
