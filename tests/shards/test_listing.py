"""A listing gives back what was put in, tells two listings apart, and is small."""

import tracemalloc

import pytest

from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import Sample


def test_samples_come_back():
    listing = Listing(width=3)
    samples = [
        Sample("a/1.jpg", 7, (0, 512, 99)),
        Sample("ü\udcff\n.jpg", 0, (1, 2**40, 3)),
        Sample("", -1, (0, 0, 0), "a link"),
    ]
    for sample in samples:
        listing.add(sample.path, sample.label, sample.place, sample.fault)
    assert [listing[i] for i in range(len(listing))] == samples
    assert list(listing) == samples
    assert listing.faulty == 1
    for index in (3, -1):
        with pytest.raises(IndexError):
            listing[index]
    with pytest.raises(ValueError, match="2 numbers"):
        listing.add("x", place=(1, 2))


def test_fingerprints_differ_where_anything_does():
    entries = [("a", 0, (1,), ""), ("a", 1, (1,), ""), ("a", 0, (2,), ""), ("a", 0, (1,), "bad"), ("b", 0, (1,), "")]
    prints = set()
    for entry in entries:
        listing = Listing(width=1)
        listing.add(*entry)
        prints.add(listing.fingerprint())
    listing = Listing(width=1)
    listing.add(*entries[0])
    assert listing.fingerprint() in prints
    assert len(prints) == len(entries)


def test_a_sample_costs_some_dozens_of_bytes():
    count, name = 100_000, "n01440764/n01440764_{:05d}.JPEG"
    tracemalloc.start()
    listing = Listing(width=3)
    for number in range(count):
        listing.add(name.format(number), number % 1000, (0, number * 100_000, 100_000))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 90 * count
