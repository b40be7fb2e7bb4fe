"""The order of samples: a pure function of (seed, epoch), whatever the ranks, threads or batches.

Shards are taken in random order, and samples are shuffled within a window of several shards: nearly as mixed as a full shuffle,
since shards are written in random order to begin with, yet disks and caches see a few files at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amdim.pipeline.augment.view_params import generator

WINDOW = 8  # shards; 2 GB of page cache at 256 MB a shard


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int, window: int = WINDOW) -> np.ndarray:
    """Indices of all samples, shard by shard numbered from 0, in the order of one epoch: (samples,) int64."""
    rng = generator(seed, epoch, stream="order")
    starts = np.concatenate([[0], np.cumsum(shard_sizes)])
    shards = rng.permutation(len(shard_sizes))
    windows = [shards[i : i + window] for i in range(0, len(shards), window)]
    return np.concatenate([rng.permutation(np.concatenate([np.arange(starts[s], starts[s + 1]) for s in w])) for w in windows])


def kept_order(keep: np.ndarray, shard_sizes: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """The same of those samples alone that are marked in ``keep`` (samples,)."""
    order = epoch_order(shard_sizes, seed, epoch)
    return order[keep[order]]


def steps_in_epoch(samples: int, batch: int) -> int:
    """Whole global batches in an epoch; the samples left over differ from epoch to epoch, as the order does."""
    return samples // batch
