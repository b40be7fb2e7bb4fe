"""A thread that brings shards, several at once.

It runs an event loop, as all it does is wait; and what it waits for can be given up at any moment, so that a command ends when it
should.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, BinaryIO

from shards.manifest import Shard

AT_ONCE = 4  # shards that one process fetches at a time


class Fetcher:
    """Runs ``obtain`` for shards, some at a time, first come first served, until it is closed or the program ends."""

    def __init__(self, obtain: Callable[[Shard], Coroutine[Any, Any, BinaryIO]]) -> None:
        self.obtain, self.turn = obtain, asyncio.Semaphore(AT_ONCE)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="shards", daemon=True)
        self.thread.start()
        self.close = weakref.finalize(self, end, self.loop, self.thread)

    def fetch(self, shard: Shard) -> Future[BinaryIO]:
        return asyncio.run_coroutine_threadsafe(self.in_turn(shard), self.loop)

    async def in_turn(self, shard: Shard) -> BinaryIO:
        async with self.turn:
            return await self.obtain(shard)


def end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Gives up what is under way: before the interpreter goes, or obstore's threads would call into what is no more."""
    asyncio.run_coroutine_threadsafe(cancel_all(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
