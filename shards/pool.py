"""Jobs over processes, with a count of what is done and a way to stop in the middle of a job."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar, TypeVar

from errors import UserError

J = TypeVar("J")
R = TypeVar("R")
Tick = Callable[[], None]
REFRESH = 0.2  # seconds between two looks at the count


class Stopped(Exception):
    """The parent wants this worker to drop its job."""


class _Shared:
    """What a worker shares with its parent; set once, when the worker starts."""

    count: ClassVar[Any]
    stop: ClassVar[Any]


def run(function: Callable[[J, Tick], R], jobs: Sequence[J], workers: int, show: Callable[[int], None]) -> list[R]:
    """``function(job, tick)`` for every job, results in the order of the jobs; ``show`` gets the number of ticks so far.

    One worker, or one job, works in this process. More are spawned, not forked, so that threads of the caller do no harm.
    Whatever ends the run early, Ctrl-C included, stops every worker at its next tick, and returns when all have cleaned up.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        return _run_here(function, jobs, show)
    context = multiprocessing.get_context("spawn")
    count, stop = context.Value("q", 0), context.RawValue("b", 0)
    with ProcessPoolExecutor(workers, context, _start, (count, stop)) as pool:
        try:
            futures = [pool.submit(_call, function, job) for job in jobs]
            _watch(futures, lambda: show(count.get_obj().value))  # not count.value: a killed worker may hold its lock
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise UserError("a worker died, perhaps for want of memory; try again with fewer --workers") from None
        except BaseException:
            stop.value = 1
            pool.shutdown(cancel_futures=True)
            raise


def _run_here(function: Callable[[J, Tick], R], jobs: Sequence[J], show: Callable[[int], None]) -> list[R]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        show(done)

    return [function(job, tick) for job in jobs]


def _watch(futures: Sequence[Future[R]], look: Callable[[], None]) -> None:
    """Looks now and then until all are done; raises the first error at once."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, REFRESH)
        for future in done:
            future.result()
        look()


def _start(count: Any, stop: Any) -> None:
    """In a new worker. A Ctrl-C reaches it too, but the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Shared.count, _Shared.stop = count, stop


def _call(function: Callable[[J, Tick], R], job: J) -> R:
    return function(job, _tick)


def _tick() -> None:
    if _Shared.stop.value:
        raise Stopped
    with _Shared.count.get_lock():
        _Shared.count.value += 1
