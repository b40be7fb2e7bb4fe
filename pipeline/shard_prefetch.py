"""Shards that a reader has open, and those that it will need next, brought ahead as far as there is room for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO

from amdim.pipeline.shard_schedule import ShardUse
from amdim.shards.manifest import Shard


@dataclass
class Held:
    """A shard that is in use, or coming; ``last`` is the last step that reads it."""

    file: Future[BinaryIO]
    last: int


class ShardPrefetcher:
    """The shards of a reader: those of the step it is at, and of the next ones as far as there is room.

    Args:
        fetch: begins to bring a shard.
        needs: what will be read, in order.
        room: bytes of shards to have at a time; what a step needs comes whether there is room or not.
        horizon: steps to look ahead.
    """

    def __init__(self, fetch: Callable[[Shard], Future[BinaryIO]], needs: Iterator[ShardUse], room: int, horizon: int) -> None:
        self.fetch, self.needs, self.room, self.horizon = fetch, needs, room, horizon
        self.held: dict[Shard, Held] = {}
        self.next = next(needs, None)
        self.step, self.closed = 0, False

    def reach(self, step: int) -> None:
        """Lets go of what only earlier steps read, and begins to bring what there is room for now."""
        if self.closed:
            return
        self.step = step
        for shard in [shard for shard, held in self.held.items() if held.last < step]:
            self.drop(shard)
        while self.next and self.fits(self.next):
            self.bring(self.next)
            self.next = next(self.needs, None)

    def bring(self, need: ShardUse) -> None:
        if need.shard in self.held:
            self.held[need.shard].last = need.last
        else:
            self.held[need.shard] = Held(self.fetch(need.shard), need.last)

    def fits(self, need: ShardUse) -> bool:
        if need.first <= self.step:
            return True
        size = 0 if need.shard in self.held else need.shard.bytes
        return need.first <= self.step + self.horizon and size + sum(shard.bytes for shard in self.held) <= self.room

    def now(self, shard: Shard) -> Future[BinaryIO]:
        """A shard that is read now, expected or not; one that could not be had early is looked for again.

        Once this is closed, it is a future that is cancelled.
        """
        if self.closed:
            return cancelled()
        held = self.held.get(shard)
        if held is None or failed(held.file):
            held = self.held[shard] = Held(self.fetch(shard), held.last if held else self.step)
        if self.closed:  # a moment ago, by another thread
            self.drop(shard)
        return held.file

    def again(self, shard: Shard) -> None:
        """Brings a shard anew, to stay as long as it would have."""
        if held := self.held.get(shard):
            self.drop(shard)
            self.held[shard] = Held(self.fetch(shard), held.last)

    def drop(self, shard: Shard) -> None:
        """Closes a shard, or gives up bringing it."""
        if held := self.held.pop(shard, None):
            held.file.cancel()
            held.file.add_done_callback(close)

    def cancel(self) -> None:
        """Gives up what is not here yet, and brings nothing any more; may be called while another thread waits for a shard."""
        self.closed = True
        for held in list(self.held.values()):
            held.file.cancel()

    def close(self) -> None:
        self.cancel()
        for shard in list(self.held):
            self.drop(shard)


def cancelled() -> Future[BinaryIO]:
    file: Future[BinaryIO] = Future()
    file.cancel()
    return file


def failed(file: Future[BinaryIO]) -> bool:
    return file.done() and not file.cancelled() and file.exception() is not None


def close(file: Future[BinaryIO]) -> None:
    if not file.cancelled() and file.exception() is None:
        file.result().close()
