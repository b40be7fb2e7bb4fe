"""Which shards are open when: for any order, sizes and batch, and for long."""

from concurrent.futures import Future
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amdim.pipeline.sampler import epoch_order
from amdim.pipeline.shard_prefetch import ShardPrefetcher
from amdim.pipeline.shard_schedule import shard_uses, working_set_bytes
from amdim.shards.manifest import Shard


class File:
    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


class Source:
    """Brings shards at once, and remembers."""

    def __init__(self):
        self.fetched, self.fails = [], False

    def __call__(self, shard):
        self.fetched.append(shard)
        file = Future()
        if self.fails:
            file.set_exception(OSError("away"))
        else:
            file.set_result(File())
        return file


def of(samples, sizes=None):
    sizes = sizes or [100] * len(samples)
    return [Shard(f"{i}.tar", *each, str(i)) for i, each in enumerate(zip(samples, sizes, strict=True))]


def stream(shards, batch, seed=0):
    """All that the steps of all epochs read, as the loader says it; and the numbers of the shards of each step."""
    samples = [shard.samples for shard in shards]
    starts, steps = np.cumsum([0, *samples]), sum(samples) // batch

    def numbers(epoch):
        return np.searchsorted(starts, epoch_order(samples, seed, epoch)[: steps * batch], "right") - 1

    expected = (need for epoch in count() for need in shard_uses(shards, numbers(epoch), batch, epoch * steps))
    read = (set(part) for epoch in count() for part in numbers(epoch).reshape(steps, batch).tolist())
    return expected, read, steps


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_what_a_step_reads_is_there_within_the_room_that_was_claimed(data):
    samples = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=40))
    batch = data.draw(st.integers(1, sum(samples)))
    shards = of(samples, [data.draw(st.integers(1, 50)) for _ in samples])
    expected, read, steps = stream(shards, batch)
    source, room = Source(), working_set_bytes(shards, batch)
    coming = ShardPrefetcher(source, expected, room, steps)
    for step, wanted in zip(range(2 * steps + 3), read, strict=False):
        coming.reach(step)
        assert {shards[number] for number in wanted} <= coming.held.keys()
        assert sum(shard.bytes for shard in coming.held) <= room
        known = len(source.fetched)
        assert not any(coming.now(shards[number]).result().closed for number in wanted)
        assert len(source.fetched) == known


def test_while_a_window_is_read_the_next_one_comes():
    shards = of([10] * 32)
    expected, read, steps = stream(shards, 4)
    coming = ShardPrefetcher(Source(), expected, working_set_bytes(shards, 4), steps)
    coming.reach(0)
    window, after = (set().union(*(next(read) for _ in range(20))) for _ in range(2))
    assert coming.held.keys() == {shards[number] for number in window | after}
    first = {shard: held.file.result() for shard, held in coming.held.items()}
    coming.reach(20)
    assert {shard for shard, file in first.items() if file.closed} == {shards[number] for number in window}


def test_a_set_with_room_for_all_of_it_is_fetched_once_in_many_epochs():
    shards = of([5, 6, 7])
    expected, _, steps = stream(shards, 2)
    source = Source()
    coming = ShardPrefetcher(source, expected, working_set_bytes(shards, 2), steps)
    for step in range(20_000):
        coming.reach(step)
    assert sorted(source.fetched, key=lambda shard: shard.file) == shards


def test_what_could_not_be_had_early_is_looked_for_again_when_it_is_read():
    shards = of([10] * 16)
    expected, _, steps = stream(shards, 4)
    source = Source()
    source.fails = True
    coming = ShardPrefetcher(source, expected, working_set_bytes(shards, 4), steps)
    coming.reach(0)
    early = next(iter(coming.held))
    with pytest.raises(OSError, match="away"):
        coming.held[early].file.result()
    source.fails = False
    assert not coming.now(early).result().closed
    assert coming.now(early) is coming.now(early)


def test_a_window_of_small_shards_is_less_than_a_batch():
    shards = of([1] * 100)
    assert working_set_bytes(shards, 2) == 16 * 100
    assert working_set_bytes(shards, 18) == 32 * 100
    assert working_set_bytes(of([50] * 5), 64) == 500


def test_what_is_closed_brings_nothing_more():
    shards = of([10] * 16)
    expected, _, steps = stream(shards, 4)
    coming = ShardPrefetcher(Source(), expected, working_set_bytes(shards, 4), steps)
    coming.reach(0)
    files = [held.file.result() for held in coming.held.values()]
    coming.close()
    assert all(file.closed for file in files)
    coming.reach(1)
    late = coming.now(shards[0])
    assert late.cancelled() or late.result().closed
    assert not coming.held


def test_what_is_brought_anew_stays_as_long_as_it_would_have():
    shards = of([10] * 16)
    expected, _, steps = stream(shards, 4)
    source = Source()
    coming = ShardPrefetcher(source, expected, working_set_bytes(shards, 4), steps)
    coming.reach(0)
    shard, before = next(iter(coming.held.items()))
    coming.again(shard)
    assert before.file.result().closed
    assert coming.held[shard].last == before.last > 0
    assert source.fetched.count(shard) == 2
    coming.reach(1)
    assert not coming.now(shard).result().closed
    assert source.fetched.count(shard) == 2
