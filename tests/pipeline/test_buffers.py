"""Memory comes back when the last tensor or array over it is gone, and not before."""

import gc

import pytest

from amdim.pipeline.buffer_pool import BufferPool

SHAPE = (4, 5, 5, 3)


def test_memory_is_taken_again_once_released():
    buffers = BufferPool()
    first = buffers.take(SHAPE)
    where = first.data_ptr()
    del first
    assert buffers.take(SHAPE).data_ptr() == where


@pytest.mark.parametrize(
    "part",
    [lambda x: x[1], lambda x: x.permute(0, 3, 1, 2), lambda x: x.numpy()[2], lambda x: x.detach()],
    ids=["a row", "a permutation", "numpy", "detached"],
)
def test_memory_stays_while_a_part_is_looked_at(part):
    buffers = BufferPool()
    whole = buffers.take(SHAPE)
    kept = part(whole.fill_(7))
    del whole
    gc.collect()
    buffers.take(SHAPE).fill_(0)
    assert (kept == 7).all()


def test_another_shape_has_its_own_memory():
    buffers = BufferPool()
    buffers.take(SHAPE)
    assert buffers.take((2, 5, 5, 3)).shape == (2, 5, 5, 3)


def test_no_more_is_kept_than_was_in_use_at_a_time():
    buffers = BufferPool()
    for _ in range(10):
        held = [buffers.take(SHAPE) for _ in range(3)]
        del held
    assert len(buffers.free[SHAPE]) == 3
