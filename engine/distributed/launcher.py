"""Starts this machine's ranks through PyTorch's elastic agent, and starts them again when one was lost.

The agent starts the ranks, watches them, ends the others when one fails, and passes signals on. Whether there is another start is
decided here, and not by the agent's own ``max_restarts``, which would repeat a wrong option as often as a lost machine: what a
rank has put into words (any exit code but LOST) is final, what ended it from outside is not.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from amdim.engine.distributed.signals import handle, say
from amdim.errors import UserError, warn

LOST = 75  # exit code of a rank that could not go on without another one
COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
OUTCOME, RESTARTED = "AMDIM_OUTCOME", "AMDIM_RESTARTED"  # of the environment: a file for rank 0's exit code; set after a loss
STOP_SECONDS = 600  # ranks that were told to stop finish a step and save; a second signal ends them at once


GOES_ON = "the same command goes on from the last checkpoint"
AGAIN = "type the command again"  # of what saves nothing


def run_ranks(ranks: int, arguments: list[str], max_restarts: int, saves: bool = True) -> int:
    """Runs ``python`` with ``arguments`` in each of ``ranks`` processes until all have ended.

    Args:
        ranks: processes on this machine; they find their number in RANK, as under torchrun.
        arguments: the command, which after a loss is repeated, and ``restarted`` tells it so.
        max_restarts: how often.
        saves: whether ranks save when they are told to stop; those that do not simply end.

    Returns:
        The exit code, 0 or what the ranks ended with. They have said why.

    Raises:
        UserError: ranks were lost more often than that.
    """
    if "--debug" not in arguments:
        logging.disable(logging.CRITICAL)  # the agent's account of each rank; the ranks speak for themselves
    relay = SignalForwarder(saves)
    for restart in range(max_restarts + 1):
        try:
            code, lost = run_once(ranks, arguments, relay)
        except SignalException:
            if saves:  # which was announced
                warn(f"the ranks ended before they had saved; {GOES_ON}, if there is one")
            return 128 + (relay.first or signal.SIGTERM)
        if lost is None:
            return code
        os.environ[RESTARTED] = "1"
        if restart < max_restarts:
            again = f"restart {restart + 1} of {max_restarts}"
            warn(f"{lost}; all ranks start again from the last checkpoint, if there is one ({again})")
    after = f" once more after {max_restarts} restarts (--max-restarts)" if max_restarts else ""
    raise UserError(f"{lost}{after}; {GOES_ON if saves else AGAIN}")


def run_once(ranks: int, arguments: list[str], relay: SignalForwarder) -> tuple[int, str | None]:
    """An exit code, or what became of the rank that was lost.

    Raises:
        SignalException: this process was told to end, and its ranks had nothing to save, or ended without a word.
    """
    with TemporaryDirectory(prefix="ranks-") as directory:
        outcome = Path(directory, "outcome")
        os.environ[OUTCOME] = str(outcome)
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
            with relay.heeded():
                elastic_launch(config, sys.executable)(*arguments)
        except ChildFailedError as error:
            return restart_decision({rank: failure.exitcode for rank, failure in error.failures.items()})
        except SignalException:  # the agent has waited for the ranks, and does not tell how they ended
            if not (relay.saves and outcome.exists()):  # or rank 0 had not begun, or was lost
                raise
            return int(outcome.read_text() or 1), None
    return 0, None


def launched() -> bool:
    """Whether ``run_ranks`` started this rank, and not torchrun or SLURM."""
    return OUTCOME in os.environ


def restarted() -> bool:
    """Whether this rank was started again after a loss, by whichever agent, or its job by SLURM."""
    return RESTARTED in os.environ or any(os.environ.get(name, "0") != "0" for name in COUNTS)


def report(code: int) -> None:
    """Tells the launcher how rank 0 ended, or what a rank failed with: a signal must not hide that, or that all was done."""
    if launched():
        with suppress(OSError):  # the disk may be full
            Path(os.environ[OUTCOME]).write_text(str(code))


def restart_decision(codes: dict[int, int]) -> tuple[int, str | None]:
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


class SignalForwarder:
    """Passes the first signal on to the ranks, which stop in their own time; the second ends them at once."""

    def __init__(self, saves: bool) -> None:
        self.saves, self.agent = saves, False
        self.first: signal.Signals | None = None
        handle(self.note)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """While there is an agent, which waits for the ranks that it passes a signal on to.

        Raises:
            SignalException: there was a signal, also before.
        """
        self.agent = True
        try:
            if self.first:
                raise SignalException("before the ranks", self.first)
            yield
        finally:
            self.agent = False

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        if self.first is None:
            self.first = signal.Signals(number)
            if self.saves:
                say(number)
            if self.agent:
                raise SignalException("passed on", self.first)
        if number == signal.SIGINT:
            for child in children():
                os.killpg(child, signal.SIGKILL)
            report(128 + number)  # in their place


def children() -> list[int]:
    """Process numbers of this process's children; the agent gives each a group of its own."""
    return [int(child) for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()]
