"""Which sample goes to which shard: a seeded permutation of each split, cut into pieces of equal count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .decode import Rejected
from .order import permutation
from .source import TRAINING, Source
from .write import Job, files_of

SHARD_BYTES = 256 * 2**20
MIN_TRAINING_SHARDS, WORTH_SPLITTING = 8, 800  # shards, samples: eight ranks then have one each
PROBES = 32  # samples read ahead, to guess the size of all
TAR_BLOCK = 512


def plan(source: Source, out: Path, seed: int) -> tuple[list[Job], int]:
    """The shards to write, and the bytes they will take, roughly."""
    jobs: list[Job] = []
    total = 0.0
    for split, samples in source.splits.items():
        order = permutation(seed, split, len(samples))
        expected = len(samples) * _mean_bytes(source, split, order)
        pieces = np.array_split(order, shard_count(split, len(samples), expected))
        first = 0
        for number, piece in enumerate(pieces):
            chosen = [samples[int(i)] for i in piece]
            jobs.append(Job(split, out / f"{split}-{number:05d}.tar", first, chosen, source.read, source.encoding))
            first += len(piece)
        total += expected
    return jobs, round(total)


def shard_count(split: str, samples: int, expected_bytes: float) -> int:
    """Shards of about ``SHARD_BYTES``, but enough of them to share a training split among ranks."""
    least = MIN_TRAINING_SHARDS if split in TRAINING and samples >= WORTH_SPLITTING else 1
    return max(least, round(expected_bytes / SHARD_BYTES))


def _mean_bytes(source: Source, split: str, order: NDArray[np.int64]) -> float:
    """Bytes a sample takes in a tar, headers and padding included, by the first few in their random order."""
    sizes = []
    for i in order[:PROBES]:
        sample = source.splits[split][int(i)]
        try:
            files = files_of(sample, source.read(sample), source.encoding)
        except Rejected:
            continue
        sizes.append(sum(TAR_BLOCK * (1 + -(-len(data) // TAR_BLOCK)) for data in files.values()))
    return float(np.mean(sizes)) if sizes else 0.0
