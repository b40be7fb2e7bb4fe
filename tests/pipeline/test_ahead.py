"""Items made ahead by a thread: the same ones, so many and no more, errors in their place, and no thread that stays."""

import threading
import time

import pytest

from amdim.pipeline.prefetch import prefetch_in_thread


class Counter:
    """Counts from 0 and says how far it is; fails at an item."""

    def __init__(self, end=10, failing=None):
        self.end, self.failing, self.made = end, failing, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.made == self.failing:
            raise OSError(f"item {self.made}")
        if self.made == self.end:
            raise StopIteration
        self.made += 1
        return self.made - 1


@pytest.fixture
def threads():
    """Those that run ahead since the test began."""
    before = running()
    return lambda: running() - before


def running():
    return {thread for thread in threading.enumerate() if thread.name.startswith("ahead")}


def wait_until(true):
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize("depth", range(5))
@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_the_same_items(depth, count):
    assert list(prefetch_in_thread(iter(range(count)), depth)) == list(range(count))


@pytest.mark.parametrize("depth", range(5))
def test_so_many_are_made_ahead_and_no_more(depth):
    counter = Counter()
    items = prefetch_in_thread(counter, depth)
    for used in range(1, 5):
        next(items)
        wait_until(lambda used=used: counter.made == used + depth)
        time.sleep(0.01)
        assert counter.made == used + depth


@pytest.mark.parametrize("depth", range(5))
def test_an_error_comes_in_its_place_and_nothing_after_it(depth, threads):
    items = prefetch_in_thread(Counter(failing=3), depth)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="item 3"):
        next(items)
    assert list(items) == []
    wait_until(lambda: not threads())


def test_the_thread_ends_with_the_items(threads):
    list(prefetch_in_thread(Counter(), 2))
    wait_until(lambda: not threads())


@pytest.mark.parametrize("end", ["close", "drop"])
def test_the_thread_ends_when_nobody_wants_more(end, threads):
    items = prefetch_in_thread(Counter(end=10**9), 2)
    next(items)
    assert threads()
    if end == "close":
        items.close()
    del items
    wait_until(lambda: not threads())


def test_what_is_being_made_when_nobody_wants_more_is_not_waited_for(threads):
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        yield 0
        begun.set()
        go_on.wait(20)
        yield 1

    items = prefetch_in_thread(slow(), 3)
    next(items)
    begun.wait(20)
    items.close()
    assert threads()
    go_on.set()
    wait_until(lambda: not threads())
