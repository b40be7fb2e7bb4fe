"""Signals that end a run after the step in hand, with its state saved; a second Ctrl-C ends it at once.

SIGINT is Ctrl-C; SIGTERM comes from `kill`, from supervisors and from SLURM before it preempts a job; SIGUSR1 is what
`sbatch --signal=USR1@120` sends two minutes before a job's time is over.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SHOW_CURSOR = "\x1b[?25h"


class Stop:
    """Remembers the first signal; ``code`` is the exit code it asks for (130, 143, 138), or None."""

    def __init__(self, speaks: bool = True) -> None:
        self.code: int | None = None
        self.speaks = speaks  # of several ranks none does: a launcher ends them by signals too
        for number in SIGNALS:
            signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        # Not Python's handler, which would wait for the operation in hand: the system's.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        first, self.code = self.code is None, self.code or 128 + number
        if first and self.speaks:
            cursor = SHOW_CURSOR if sys.stderr.isatty() else ""  # the live view may have hidden it, and a kill would not show it
            words = f"{signal.Signals(number).name}: finishing this step and saving; Ctrl-C ends it at once\n"
            os.write(2, f"{cursor}{words}".encode())  # a print is not safe in here


def same_command(arguments: Sequence[str]) -> str:
    """What to type to go on with a run that ``arguments`` began: without --resume, which would go back once more."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--resume" and not argument.startswith("--resume="):
            kept.append(argument)
        skip = argument == "--resume"
    return shlex.join(["python", *kept])
