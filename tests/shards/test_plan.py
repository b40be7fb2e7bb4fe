"""A plan of millions of samples takes tens of bytes for each, and makes the jobs of one shard at a time."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from amdim.shards.plan import Plan
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import Raw, Source


def image(sample):

    return Raw(np.zeros((180, 180, 3), np.uint8))


def listing_of(count):
    listing = Listing(width=1)
    for number in range(count):
        listing.add(f"n{number // 700:08d}/n{number // 700:08d}_{number % 700}.JPEG", 0, (number,))
    return listing


def test_a_plan_is_small_beside_its_names(tmp_path):
    count = 200_000
    names = sum(len(f"n{n // 700:08d}/n{n // 700:08d}_{n % 700}.JPEG") for n in range(count))
    tracemalloc.start()
    plan = Plan(Source("made", (), {"train": listing_of(count)}, image), tmp_path, 0)
    for number in range(len(plan)):
        assert plan[number].samples
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    jobs = 400 * max(len(plan[number].samples) for number in range(len(plan)))
    assert peak - jobs < names * 1.15 + 45 * count


def test_the_jobs_hold_every_sample_once_under_its_key(tmp_path):
    listing = listing_of(3001)
    plan = Plan(Source("made", (), {"train": listing, "val": listing_of(7)}, image), tmp_path, 0)
    jobs = [plan[number] for number in range(len(plan))]
    train = [job for job in jobs if job.split == "train"]
    assert [job.path.name for job in train] == [f"train-{number:05d}.tar" for number in range(8)]
    assert sorted(sample.path for job in train for sample in job.samples) == sorted(s.path for s in listing_samples(listing))
    assert [job.first_key for job in train] == np.cumsum([0, *(len(job.samples) for job in train)])[:-1].tolist()
    assert {len(job.samples) for job in train} == {375, 376}
    assert len(jobs[-1].samples) == 7
    assert plan.samples == 3008


def listing_samples(listing):
    return [listing[number] for number in range(len(listing))]


@pytest.mark.long
def test_fourteen_million_samples_fit_in_a_gigabyte():
    command = "from bench.shards import planned; planned(14_000_000)"
    run = subprocess.run(
        [sys.executable, "-c", command], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=280
    )
    assert run.returncode == 0, run.stderr
    words = run.stdout.split()
    assert words[1] == "14,000,000"
    assert float(words[words.index("GB") - 1]) <= 1.0
