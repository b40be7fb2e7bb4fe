"""Starts this machine's ranks through PyTorch's elastic agent, and starts them again when one was lost.

The agent starts the ranks, watches them, ends the others when one fails, and passes signals on. Whether there is another start is
decided here, and not by the agent's own ``max_restarts``, which would repeat a wrong option as often as a lost machine: what a
rank has put into words (exit codes 1, 2, 130, 143) is final, what ended it from outside is not.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from errors import UserError, warn

LOST = 75  # exit code of a rank that could not go on without another one
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOP_SECONDS = 600  # ranks that were told to stop finish a step and save; a second signal ends them at once


def run_ranks(ranks: int, arguments: list[str], max_restarts: int) -> int:
    """Runs ``python`` with ``arguments`` in each of ``ranks`` processes until all have ended.

    Args:
        ranks: processes on this machine; they find their number in RANK, as under torchrun.
        arguments: the command; after a loss it is repeated with ``--resume auto``.
        max_restarts: how often.

    Returns:
        The exit code, 0 or what the ranks ended with. They have said why.

    Raises:
        UserError: ranks were lost more often than that.
    """
    if "--debug" not in arguments:
        logging.disable(logging.CRITICAL)  # the agent's account of each rank; the ranks speak for themselves
    Signals()
    for restart in range(max_restarts + 1):
        again = ["--resume", "auto"] if restart else []
        code, lost = run_once(ranks, arguments + again)
        if lost is None:
            return code
        if restart < max_restarts:
            warn(f"{lost}; all ranks start again from the last checkpoint (restart {restart + 1} of {max_restarts})")
    after = f" once more after {max_restarts} restarts (--max-restarts)" if max_restarts else ""
    raise UserError(f"{lost}{after}; the same command goes on from the last checkpoint")


def run_once(ranks: int, arguments: list[str]) -> tuple[int, str | None]:
    """An exit code, or what became of the rank that was lost."""
    with TemporaryDirectory(prefix="ranks-") as directory:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=directory),
            signals_to_handle="SIGQUIT",  # the others are ours
            shutdown_timeout=STOP_SECONDS,
        )
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except ChildFailedError as error:
            return verdict({rank: failure.exitcode for rank, failure in error.failures.items()})
        except SignalException as stopped:
            return 128 + stopped.sigval, None
    return 0, None


def verdict(codes: dict[int, int]) -> tuple[int, str | None]:
    """From exit codes of ranks, negative for signals: a code that is final, or what became of the one that was lost.

    The first to end come first. The agent then sends SIGTERM to the others, and SIGKILL to those that do not end by that.
    """
    said = [code for code in codes.values() if code > 0 and code != LOST]
    lost = {rank: code for rank, code in codes.items() if code == LOST or (code < 0 and -code != signal.SIGTERM)}
    if wrong := [code for code in said if code in (1, 2)]:
        return wrong[0], None
    if not lost:
        return said[0] if said else 128 + signal.SIGTERM, None
    rank, code = next(iter(lost.items()))
    if code == LOST:
        return 1, "a rank does not answer"
    hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
    return 1, f"rank {rank} was ended by {signal.Signals(-code).name}{hint}"


class Signals:
    """Passes the first signal on to the ranks, which stop in their own time; the second ends them at once."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        for number in PASSED_ON:
            signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        if self.first is None:
            self.first = signal.Signals(number)
            raise SignalException("passed on", self.first)  # which the agent waits for
        if number == signal.SIGINT:
            for child in children():
                os.killpg(child, signal.SIGKILL)


def children() -> list[int]:
    """Process numbers of this process's children; the agent gives each a group of its own."""
    return [int(child) for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()]
