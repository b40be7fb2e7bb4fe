"""Which sample goes to which shard: a seeded permutation of each split, cut into pieces of equal count.

A plan keeps four bytes a sample, and makes a shard's job when it is asked for, so that fourteen million samples fit in a laptop.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amdim.shards.permutation import permutation
from amdim.shards.sources.base import TRAINING, Rejected, Source
from amdim.shards.writer import Job, files_of

SHARD_BYTES = 256 * 2**20
MIN_TRAINING_SHARDS, WORTH_SPLITTING = 8, 800  # shards, samples: eight ranks then have one each
PROBES = 32  # samples read ahead, to guess the size of all
TAR_BLOCK = 512


class Piece(NamedTuple):
    """A shard: samples ``start`` to ``stop`` in the order of its split."""

    split: str
    number: int
    start: int
    stop: int


class Plan:
    """The jobs of a set, by number; ``expected`` is the bytes they will take, roughly, and ``shards`` how many each split has."""

    def __init__(self, source: Source, out: Path, seed: int) -> None:
        self.source, self.out = source, out
        self.orders: dict[str, NDArray[np.uint32]] = {}
        self.pieces: list[Piece] = []
        self.shards: dict[str, int] = {}
        total = 0.0
        for split, samples in source.splits.items():
            order = self.orders[split] = permutation(seed, split, len(samples)).astype(np.uint32)
            expected = len(samples) * _mean_bytes(source, split, order)
            self.shards[split] = shard_count(split, len(samples), expected)
            self.pieces += _cut(split, len(samples), self.shards[split])
            total += expected
        self.expected = round(total)

    @property
    def samples(self) -> int:
        return sum(map(len, self.orders.values()))

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int, /) -> Job:
        piece = self.pieces[index]
        samples = self.source.splits[piece.split]
        chosen = [samples[int(i)] for i in self.orders[piece.split][piece.start : piece.stop]]
        name = f"{piece.split}-{piece.number:05d}"
        return Job(piece.split, self.out / f"{name}.tar", piece.start, chosen, self.source.read, self.source.encoding)


def shard_count(split: str, samples: int, expected_bytes: float) -> int:
    """Shards of about ``SHARD_BYTES``, but enough of them to share a training split among ranks."""
    least = MIN_TRAINING_SHARDS if split in TRAINING and samples >= WORTH_SPLITTING else 1
    return max(least, round(expected_bytes / SHARD_BYTES))


def _cut(split: str, samples: int, shards: int) -> list[Piece]:
    """Pieces whose lengths differ by one at most, the longer ones first."""
    share, more = divmod(samples, shards)
    ends = [number * share + min(number, more) for number in range(shards + 1)]
    return [Piece(split, number, *ends[number : number + 2]) for number in range(shards)]


def _mean_bytes(source: Source, split: str, order: NDArray[np.uint32]) -> float:
    """Bytes a sample takes in a tar, headers and padding included, by the first few in their random order."""
    sizes = []
    for i in order[:PROBES]:
        sample = source.splits[split][int(i)]
        try:
            files, _ = files_of(sample, source.read(sample), source.encoding)
        except Rejected:
            continue
        sizes.append(sum(TAR_BLOCK * (1 + -(-len(data) // TAR_BLOCK)) for data in files.values()))
    return float(np.mean(sizes)) if sizes else 0.0
