"""A thread that brings shards, several at once.

It runs an event loop, as all it does is wait; and what it waits for can be given up at any moment, so that a command ends when it
should.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

from amdim.shards.manifest import Shard

AT_ONCE = 4  # shards that one process fetches at a time


running: dict[threading.Thread, asyncio.AbstractEventLoop] = {}


class FetchThread:
    """Runs ``obtain`` for shards, some at a time, first come first served, until it is closed or dropped or the program ends."""

    def __init__(self, obtain: Callable[[Shard], Coroutine[Any, Any, BinaryIO]]) -> None:
        self.obtain, self.turn = obtain, asyncio.Semaphore(AT_ONCE)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=run, args=(self.loop,), name="shards", daemon=True)
        running[self.thread] = self.loop
        self.thread.start()
        # The garbage collector may call this in any thread, obstore's own included: it must not wait there.
        weakref.finalize(self, stop, self.loop).atexit = False

    def fetch(self, shard: Shard) -> Future[BinaryIO]:
        file: Future[BinaryIO] = Future()
        self.loop.call_soon_threadsafe(self.begin, shard, file)
        return file

    def begin(self, shard: Shard, file: Future[BinaryIO]) -> None:
        task = self.loop.create_task(self.in_turn(shard))
        task.add_done_callback(partial(deliver, file))
        file.add_done_callback(lambda _: call(self.loop, task.cancel))

    async def in_turn(self, shard: Shard) -> BinaryIO:
        async with self.turn:
            return await self.obtain(shard)

    def close(self) -> None:
        """Gives up what is under way, and waits until it is given up."""
        stop(self.loop)
        self.thread.join()


def deliver(file: Future[BinaryIO], task: asyncio.Task[BinaryIO]) -> None:
    """What a task ended with. A file that nobody wants any more is closed: asyncio's own chain of futures would leave it open."""
    if task.cancelled():
        file.cancel()
    elif not file.set_running_or_notify_cancel():
        if task.exception() is None:
            task.result().close()
    elif error := task.exception():
        file.set_exception(error)
    else:
        file.set_result(task.result())


def run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()
    running.pop(threading.current_thread(), None)


def call(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(act)


def stop(loop: asyncio.AbstractEventLoop) -> None:
    call(loop, lambda: loop.create_task(give_up(loop)))


async def give_up(loop: asyncio.AbstractEventLoop) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    loop.stop()


@atexit.register
def end_all() -> None:
    """Before the interpreter goes, or obstore's threads would call into what is no more."""
    for thread, loop in list(running.items()):
        stop(loop)
        thread.join()
