"""The order: each sample once an epoch, another order every epoch, a function of (seed, epoch); the draws, of the step too."""

from unittest import mock

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amdim.pipeline import TwoViewLoader
from amdim.pipeline.augment.recipes import IMAGENET128
from amdim.pipeline.augment.view_params import sample_view_params
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.sampler import epoch_order, steps_in_epoch

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)
SEEDS, EPOCHS = st.integers(0, 2**63 - 1), st.integers(0, 1000)


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


@given(sizes=st.lists(st.integers(1, 40), min_size=20, max_size=40), batch=st.integers(40, 200), seed=SEEDS, epoch=EPOCHS)
def test_left_overs_differ_between_epochs(sizes, batch, seed, epoch):
    """Where six or more are left of a hundred or more, equal ones would be an accident of one in a thousand million."""
    kept = steps_in_epoch(sum(sizes), batch) * batch
    assume(sum(sizes) >= 100 and sum(sizes) - kept >= 6)
    left = [frozenset(epoch_order(sizes, seed, each, window=40)[kept:].tolist()) for each in range(epoch, epoch + 4)]
    assert len(set(left)) == 4


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
    assume(2 <= batch <= sum(sizes))  # others are refused
    ranks = [loader_of(sizes, batch, rank, world, seed) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {sum(sizes) // batch}
    steps = len(ranks[0])
    seen = [np.concatenate([rank.samples(epoch, step) for rank in ranks]) for step in range(steps)]
    expected = epoch_order(sizes, seed, epoch)[: steps * batch]
    assert np.concatenate([*seen, []]).tolist() == expected.tolist()
    assert len(set(expected.tolist())) == len(expected)


@settings(max_examples=40)
@given(sizes=SIZES, world=st.integers(1, 8), share=st.integers(1, 8), seed=SEEDS, epoch=EPOCHS, step=st.integers(0, 100))
def test_ranks_take_their_parts_of_the_draws_of_one(sizes, world, share, seed, epoch, step):
    """Whatever the seed, and whatever was drawn before."""
    batch = world * share
    assume(2 <= batch <= sum(sizes))
    step %= sum(sizes) // batch
    whole = loader_of(sizes, batch, 0, 1, seed).job(epoch, step).draws
    parts = [loader_of(sizes, batch, rank, world, seed).job(epoch, step).draws for rank in range(world)]
    for view in range(2):
        for one, several in zip(columns(whole[view]), zip(*(columns(part[view]) for part in parts), strict=True), strict=True):
            assert np.array_equal(one, np.concatenate(several))


def columns(draws):
    return [draws.box, draws.transposed, *draws.jitter]


@settings(max_examples=40)
@given(seed=SEEDS, epoch=EPOCHS, step=st.integers(0, 10**6))
def test_draws_are_a_function_of_seed_epoch_and_step(seed, epoch, step):
    """None of which can be taken for another; neither what was drawn before nor NumPy's own state enters."""
    sizes = np.tile([[500, 375]], (8, 1))
    first = sample_view_params(IMAGENET128, sizes, seed, epoch, step)
    np.random.seed(step)
    others = [(seed + 1, epoch, step), (seed, epoch + 1, step), (seed, epoch, step + 1), (epoch, step, seed % 2**32)]
    boxes = [sample_view_params(IMAGENET128, sizes, *other)[0].box for other in others if other != (seed, epoch, step)]
    again = sample_view_params(IMAGENET128, sizes, seed, epoch, step)
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(columns(a), columns(b), strict=True))
    assert not any(np.array_equal(first[0].box, box) for box in boxes)
    assert not np.array_equal(first[0].box, first[1].box)


def loader_of(sizes, batch, rank, world, seed):
    """A whole loader, of images that have sizes and no bytes."""
    with mock.patch("amdim.pipeline.loaders.SampleStore", return_value=Images(sizes)):
        return TwoViewLoader(Nowhere(), ["train"], IMAGENET128, batch, rank, world, seed=seed)


class Nowhere(ShardedDataset):
    """No files."""

    def __init__(self):
        self.manifest = None


class Images:
    """As many as are asked for, in sizes that differ."""

    def __init__(self, shard_sizes):
        number = np.arange(sum(shard_sizes))
        self.shard_sizes, self.shards = shard_sizes, []
        self.sizes = 100 + np.stack([number % 400, number % 300], 1)

    def __len__(self):
        return len(self.sizes)

    def batch(self, samples):
        return list(samples)
