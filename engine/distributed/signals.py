"""Signals that end a run after the step in hand, with its state saved; a second Ctrl-C ends it at once.

SIGINT is Ctrl-C; SIGTERM comes from `kill`, from supervisors and from SLURM before it preempts a job; SIGUSR1 is what
`sbatch --signal=USR1@120` sends two minutes before a job's time is over; SIGHUP comes when a terminal closes, unless `nohup`
keeps it out.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from amdim.errors import blurt, installed, redacted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
SHOW_CURSOR = "\x1b[?25h"


def handle(note: Callable[[int, FrameType | None], None]) -> None:
    """Has signals told to ``note``, but for a SIGHUP that `nohup` has this process ignore.

    SIGINT counts though it may be ignored at the start, as a shell has its background jobs do.
    """
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, note)


def say(number: int) -> None:
    """One line from within a handler, where a print is not safe; the live view may have hidden the cursor."""
    cursor = SHOW_CURSOR if sys.stderr.isatty() else ""
    blurt(f"{cursor}{signal.Signals(number).name}: finishing this step and saving; Ctrl-C ends it at once\n")


def watch(reader: int) -> None:
    """A thread that ends the process at a Ctrl-C after another signal, of each of which the system writes the number to a pipe.

    Python hears of a signal when the operation in hand has ended, which may be never. From then on the system ends it by itself.
    """
    seen = False
    while numbers := os.read(reader, 64):
        for number in numbers:
            if seen and number == signal.SIGINT:
                if sys.stderr.isatty():
                    blurt(SHOW_CURSOR)
                os._exit(128 + signal.SIGINT)
            seen = seen or number in SIGNALS


class GracefulShutdown:
    """Remembers the first signal; ``code`` is the exit code it asks for (130, 143, 138, 129), or None.

    Args:
        speaks: whether it says what it does; of several ranks none does, but their launcher.
        launched: whether a launcher passes signals on. It ends ranks itself at a second Ctrl-C, and a signal that was meant for
            both, as `pkill` sends it, comes twice here.
    """

    def __init__(self, speaks: bool = True, launched: bool = False) -> None:
        self.code: int | None = None
        self.speaks, self.next = speaks, signal.SIG_IGN if launched else signal.SIG_DFL
        handle(self.note)
        if launched:
            return
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=watch, args=(reader,), daemon=True).start()

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        # Not Python's handler, which would wait for the operation in hand: the system's.
        signal.signal(signal.SIGINT, self.next)
        first, self.code = self.code is None, self.code or 128 + number
        if first and self.speaks:
            say(number)


def same_command(arguments: Sequence[str]) -> str:
    """What to type to go on with a run that ``arguments`` began, but for secrets in a URL.

    It is without --resume, which would go back once more.
    """
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--resume" and not argument.startswith("--resume="):
            kept.append(redacted(argument))
        skip = argument == "--resume"
    return shlex.join([Path(kept[0]).name, *kept[1:]] if installed() else ["python", *kept])
