"""What is needed next, made by a thread while what came before it is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def prefetch_in_thread(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items in the same order; ``depth`` of them are made or being made while one is used.

    An error comes in the place of its item, and nothing after it. With a depth of 0 an item is made when it is asked for, and
    there is no thread. The thread ends with the iterator: at its end, when it is closed or dropped, and when the process exits.
    """
    if not depth:
        yield from items
        return
    end: Any = object()
    thread = ThreadPoolExecutor(1, "ahead")
    try:
        waiting = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item
    finally:
        # Not waited for: the garbage collector may be what closes this, in this very thread.
        thread.shutdown(wait=False, cancel_futures=True)
