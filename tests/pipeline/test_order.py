"""The order: each sample once an epoch, another order every epoch, a function of (seed, epoch)."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline import TwoViewLoader
from pipeline.order import epoch_order, steps_in_epoch

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(sizes=SIZES, seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), window=st.integers(1, 5))
def test_every_sample_once(sizes, seed, epoch, window):
    order = epoch_order(sizes, seed, epoch, window)
    assert sorted(order.tolist()) == list(range(sum(sizes)))


def test_a_function_of_seed_and_epoch():
    sizes = [50] * 4
    first = epoch_order(sizes, 1, 2)
    assert np.array_equal(first, epoch_order(sizes, 1, 2))
    assert not np.array_equal(first, epoch_order(sizes, 1, 3))
    assert not np.array_equal(first, epoch_order(sizes, 2, 2))


@given(sizes=SIZES, batch=st.integers(2, 50))
def test_what_is_left_over_is_less_than_a_batch(sizes, batch):
    left = sum(sizes) - steps_in_epoch(sum(sizes), batch) * batch
    assert 0 <= left < batch


def test_left_overs_differ_between_epochs():
    sizes, batch = [25] * 8, 64
    kept = steps_in_epoch(200, batch) * batch
    left = {frozenset(epoch_order(sizes, 0, epoch)[kept:].tolist()) for epoch in range(10)}
    assert len(left) == 10


def test_samples_come_from_one_window_of_shards_at_a_time():
    """Reading stays local: the first window's samples all come before the second's."""
    sizes = [10] * 12
    order = epoch_order(sizes, 0, 0, window=4)
    windows = [set((order[i : i + 40] // 10).tolist()) for i in (0, 40, 80)]
    assert all(len(window) == 4 for window in windows)
    assert len(set().union(*windows)) == 12


@given(sizes=SIZES, world=st.integers(1, 8), share=st.integers(1, 12), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_ranks_take_the_same_number_of_steps_and_no_sample_twice(sizes, world, share, seed, epoch):
    """The loader's own arithmetic, without images: what all ranks see in an epoch is the order, less than a batch short."""
    batch = world * share
    ranks = [bare_loader(sizes, batch, rank, world, seed) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {sum(sizes) // batch}
    steps = len(ranks[0])
    seen = [np.concatenate([rank.samples(epoch, step) for rank in ranks]) for step in range(steps)]
    expected = epoch_order(sizes, seed, epoch)[: steps * batch]
    assert np.concatenate([*seen, []]).tolist() == expected.tolist()
    assert len(set(expected.tolist())) == len(expected)


def bare_loader(sizes, batch, rank, world, seed):
    loader = TwoViewLoader.__new__(TwoViewLoader)
    loader.batch, loader.rank, loader.world = batch, rank, world
    loader.store = range(sum(sizes))
    loader.order = lambda epoch: epoch_order(sizes, seed, epoch)
    return loader
