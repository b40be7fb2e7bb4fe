"""The stream: the same bits however far ahead, by however many threads, ranks and processes, and wherever it was stopped."""

import signal
import subprocess
import sys
import threading
from itertools import islice
from time import sleep

import numpy as np
import pytest
import torch

from amdim.pipeline import TwoViewLoader
from tests.pipeline.loaders import RECIPE, copied, endless, equal, joined, loader, same, take
from tests.pipeline.test_ahead import wait_until


def test_same_seed_same_batches_another_seed_others(photo_set):
    first, again, other = (take(loader(photo_set, seed=seed), 3) for seed in (1, 1, 2))
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].x1, other[0].x1)


@pytest.mark.parametrize(("prefetch", "threads"), [(1, 2), (2, 1), (3, 3), (4, 2)])
def test_how_far_ahead_and_by_how_many_threads_changes_no_bit(photo_set, whole, prefetch, threads):
    assert same(take(loader(photo_set, prefetch=prefetch, threads=threads), 14), whole("torch"))


@pytest.mark.parametrize("pixels", ["dali", "levels", "torch"])
@pytest.mark.parametrize(("done", "prefetch", "threads"), [(1, 1, 2), (5, 2, 3), (6, 3, 1), (9, 4, 2)])
def test_resume_continues_bit_for_bit(photo_set, whole, done, pixels, prefetch, threads):
    """Within an epoch, at its end, and in the next one. An epoch is 6 batches."""
    started = loader(photo_set, pixels=pixels, threads=threads, prefetch=prefetch)
    assert same(take(started, done), whole(pixels)[:done])
    resumed = loader(photo_set, pixels=pixels, threads=threads, prefetch=prefetch)
    resumed.load_state_dict(started.state_dict())
    assert same(take(resumed, 14 - done), whole(pixels)[done:])


def test_the_state_after_any_step_is_continued_by_any_ranks(photo_set, whole):
    """One loader is stopped after each step, whatever it has made ahead; others go on from there, in parts."""
    started = loader(photo_set, prefetch=2)
    for done, views in enumerate(islice(endless(started), 12), 1):
        assert equal(views, whole("torch")[done - 1])
        world, prefetch = (1, 2, 4)[done % 3], 1 + done % 4
        parts = [loader(photo_set, rank=rank, world=world, prefetch=prefetch, threads=1 + done % 2) for rank in range(world)]
        for part in parts:
            part.load_state_dict(started.state_dict())
        assert same(joined(parts, 2), whole("torch")[done : done + 2])


@pytest.mark.parametrize("pixels", ["dali", "levels", "torch"])
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_a_batch_is_good_until_the_next_is_asked_for(photo_set, whole, pixels, prefetch):
    """Also once those ahead of it are made, which take some milliseconds each."""
    for views, expected in zip(loader(photo_set, pixels=pixels, prefetch=prefetch), whole(pixels), strict=False):
        sleep(0.03)
        assert equal(views, expected)


@pytest.mark.parametrize(("pixels", "world"), [("torch", 2), ("torch", 4), ("dali", 4), ("levels", 4)])
def test_one_rank_and_several_see_the_same_views(photo_set, pixels, world):
    """Batches of 32: four ranks take 8 each."""
    one = [copied(views) for views in take(loader(photo_set, batch=32, pixels=pixels), 4)]
    assert same(joined([loader(photo_set, batch=32, pixels=pixels, rank=rank, world=world) for rank in range(world)], 4), one)


RESUME = """
import signal, sys, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it runs in the background ignore it
from pathlib import Path
from tests.pipeline.loaders import endless, joined, loader
for pixels in ("dali", "torch"):
    ranks = [loader(Path(sys.argv[1]), pixels=pixels, rank=rank, world=2, prefetch=3, threads=2) for rank in range(2)]
    for source in ranks:
        source.load_state_dict(torch.load(f"{sys.argv[2]}/{pixels}"))
    torch.save(joined(ranks, 5), f"{sys.argv[2]}/{pixels}-batches")
print("saved", flush=True)
for _ in endless(ranks[0]):
    pass
"""


def test_another_process_with_more_ranks_continues_bit_for_bit_until_ctrl_c(photo_set, whole, tmp_path):
    for pixels in ("dali", "torch"):
        started = loader(photo_set, pixels=pixels)
        take(started, 4)
        torch.save(started.state_dict(), tmp_path / pixels)
    command = [sys.executable, "-c", RESUME, str(photo_set), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "saved\n", process.communicate()[1]
    for pixels in ("dali", "torch"):
        assert same(torch.load(tmp_path / f"{pixels}-batches"), whole(pixels)[4:9])
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()  # one that heard nothing would go on for ever
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


def test_several_splits_are_one_stream(photo_set):
    source = TwoViewLoader(photo_set, ["train", "val"], RECIPE, 20, threads=1)
    assert len(source) == (96 + 24) // 20
    seen = np.concatenate([source.samples(0, step) for step in range(len(source))])
    assert sorted(seen) == list(range(120))
    assert all((source.samples(0, step) >= 96).any() for step in range(len(source)))  # val's are mixed in
    alone = [loader(photo_set).store, TwoViewLoader(photo_set, ["val"], RECIPE, 20).store]
    for sample in (0, 95, 96, 119):
        store, row = (alone[0], sample) if sample < 96 else (alone[1], sample - 96)
        assert np.array_equal(source.store.encoded(sample), store.encoded(row))
        assert source.store.labels[sample] == store.labels[row]


def python_threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith(("ahead", "views"))}


@pytest.mark.parametrize("pixels", ["dali", "levels", "torch"])
def test_no_thread_stays_when_a_loader_is_dropped_or_starts_elsewhere(photo_set, pixels):
    before = python_threads()
    source = loader(photo_set, pixels=pixels, prefetch=2)
    for _ in range(3):
        take(source, 2)
        first = python_threads() - before
        source.load_state_dict(source.state_dict())
        wait_until(lambda threads=first: not any(thread.is_alive() for thread in threads))
    take(source, 2)
    del source
    wait_until(lambda: not python_threads() - before)
    assert python_threads() <= before
