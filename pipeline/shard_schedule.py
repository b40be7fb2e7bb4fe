"""Which shards the steps of an order need, and when: so that they can be brought before that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from amdim.pipeline.sampler import WINDOW
from amdim.shards.manifest import Shard


class ShardUse(NamedTuple):
    """A shard, and the first and the last step that read it; steps are counted from the first of epoch 0."""

    shard: Shard
    first: int
    last: int


def shard_uses(shards: Sequence[Shard], numbers: np.ndarray, batch: int, step: int) -> list[ShardUse]:
    """What some steps read, in the order in which they do.

    Args:
        shards: the shards of a store.
        numbers: of each sample, the number of its shard: (samples,), ``batch`` of them a step.
        step: the first of these steps.
    """
    found, first = np.unique(numbers, return_index=True)
    last = len(numbers) - 1 - np.unique(numbers[::-1], return_index=True)[1]
    rows = sorted(zip(first // batch + step, first, last // batch + step, found, strict=True))
    return [ShardUse(shards[number], int(begins), int(ends)) for begins, _, ends, number in rows]


def working_set_bytes(shards: Sequence[Shard], batch: int) -> int:
    """Bytes of the shards that a step can need: those of a window of the order and of the next, as a batch may lie in both.

    While a step lies in one window alone there is room for the whole next one, so this is also what can be fetched ahead. More
    windows than two where they are smaller than a batch. Shards are taken to be the largest.
    """
    smallest = sum(sorted(shard.samples for shard in shards)[:WINDOW])
    windows = 2 + max(0, batch - 2) // max(1, smallest)
    return sum(sorted((shard.bytes for shard in shards), reverse=True)[: windows * WINDOW])
