"""Jobs over processes, with a count of what is done and a way to stop in the middle of a job.

Any ``concurrent.futures.Executor`` will do; the one used by default is made of processes of this machine.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from amdim.errors import UserError

J = TypeVar("J")
J_co = TypeVar("J_co", covariant=True)
R = TypeVar("R")
REFRESH = 0.2  # seconds between two looks at the count
AHEAD = 2  # jobs a worker has at most: the one it does and the next; more would only take memory


class Tick(Protocol):
    """Says that some samples are done."""

    def __call__(self, samples: int = 1) -> None: ...


class Jobs(Protocol[J_co]):
    """A list of jobs, or what makes each when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> J_co: ...


class Team(NamedTuple):
    """An executor of any kind, and how many workers it has."""

    executor: Executor
    size: int


class Stopped(Exception):
    """The parent wants this worker to drop its job."""


class _Shared:
    """What a worker of this machine shares with its parent, set when the worker starts; elsewhere there is nothing."""

    count: ClassVar[Any] = None
    stop: ClassVar[Any] = None


def run(
    function: Callable[[J, Tick], R],
    jobs: Jobs[J],
    workers: int | Team,
    show: Callable[[int], None],
    take: Callable[[int, R], None],
) -> None:
    """``take(number, function(job, tick))`` for every job, as they get done; ``show`` gets the number of ticks so far.

    One worker, or one job, works in this process. More are spawned, not forked, so that threads of the caller do no harm.
    Whatever ends the run early, Ctrl-C included, stops every local worker at its next tick, and returns when all have cleaned up.
    Workers of a ``Team`` finish the job they are at; what they did shows job by job.
    """
    if isinstance(workers, Team):
        _run(function, jobs, workers, show, take, None)
    elif min(workers, len(jobs)) <= 1:
        _run_here(function, jobs, show, take)
    else:
        with _processes(min(workers, len(jobs))) as (team, count):
            _run(function, jobs, team, show, take, count)


def _run_here(
    function: Callable[[J, Tick], R], jobs: Jobs[J], show: Callable[[int], None], take: Callable[[int, R], None]
) -> None:
    done = 0

    def tick(samples: int = 1) -> None:
        nonlocal done
        done += samples
        show(done)

    for number in range(len(jobs)):
        take(number, function(jobs[number], tick))


@contextmanager
def _processes(workers: int) -> Iterator[tuple[Team, Callable[[], int]]]:
    """Workers of this machine, and what tells how many samples they have done."""
    context = multiprocessing.get_context("spawn")
    count, stop = context.Value("q", 0), context.RawValue("b", 0)
    with ProcessPoolExecutor(workers, context, _start, (count, stop)) as executor:
        try:
            yield (
                Team(executor, workers),
                lambda: int(count.get_obj().value),
            )  # not count.value: a killed worker may hold its lock
        except BrokenProcessPool:
            raise UserError("a worker died, perhaps for want of memory; try again with fewer --workers") from None
        except BaseException:
            stop.value = 1
            executor.shutdown(cancel_futures=True)
            raise


def _run(
    function: Callable[[J, Tick], R],
    jobs: Jobs[J],
    team: Team,
    show: Callable[[int], None],
    take: Callable[[int, R], None],
    count: Callable[[], int] | None,
) -> None:
    """Keeps the team busy with few jobs at a time; raises the first error at once."""
    pending: dict[Future[tuple[R, int]], int] = {}
    submitted = finished = 0
    try:
        while pending or submitted < len(jobs):
            while submitted < len(jobs) and len(pending) < AHEAD * team.size:
                pending[team.executor.submit(_call, function, jobs[submitted])] = submitted
                submitted += 1
            for future in wait(pending, REFRESH, FIRST_COMPLETED).done:
                number = pending.pop(future)
                result, ticks = future.result()
                finished += ticks
                take(number, result)
            show(count() if count else finished)
    finally:
        for future in pending:
            future.cancel()


def _start(count: Any, stop: Any) -> None:
    """In a new worker. A Ctrl-C reaches it too, but the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Shared.count, _Shared.stop = count, stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed leaves its workers waiting for jobs forever, or writing where another build has begun."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _call(function: Callable[[J, Tick], R], job: J) -> tuple[R, int]:
    """In a worker: the result and how many samples were done for it."""
    done = 0

    def tick(samples: int = 1) -> None:
        nonlocal done
        done += samples
        if _Shared.count is None:
            return
        if _Shared.stop.value:
            raise Stopped
        with _Shared.count.get_lock():
            _Shared.count.value += samples

    return function(job, tick), done
