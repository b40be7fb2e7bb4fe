"""The images that a report is about: some of the validation split, and others among which their neighbours are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.remote_dataset import RemoteDataset
from amdim.pipeline.sample_store import SampleStore, batch_that_fits
from amdim.shards.manifest import Manifest

GALLERY, QUERIES = 4096, 1024  # at most: seconds for the small encoders on a CPU, and for the large ones on a GPU
TRAINED, TESTED = ("train", "unlabeled"), ("val", "test")
FAR = 4  # shards of a split that are read of a set that is elsewhere, as each of them has to come whole


@dataclass(frozen=True)
class Subset:
    """Some samples of a split, by their rows (n,) in its store; ``pool`` are all rows that may be read, in a random order."""

    store: SampleStore
    rows: np.ndarray
    pool: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, -1 unlabelled."""
        return self.store.labels[self.rows]

    def batches(self, most: int) -> Iterator[np.ndarray]:
        """The rows so many at a time, fewer where the images are large."""
        count = batch_that_fits(self.store.sizes[self.rows], most)
        return (self.rows[start : start + count] for start in range(0, len(self.rows), count))

    def take(self, which: np.ndarray) -> Subset:
        return self.of(self.rows[which])

    def of(self, rows: np.ndarray) -> Subset:
        return Subset(self.store, rows, self.pool)


def choose_parts(data: ShardedDataset, seed: int = 0) -> tuple[Subset, Subset]:
    """Gallery and queries, at random: training and validation images where both are there, else two parts of one split."""
    filled = [name for name, split in data.manifest.splits.items() if split.samples]
    trained = next((name for name in TRAINED if name in filled), filled[0])
    tested = next((name for name in TESTED if name in filled), trained)
    rng = np.random.default_rng(seed)
    gallery, queries = (whole(data, name, rng) for name in (trained, tested))
    if trained == tested:
        queries = gallery.of(gallery.pool[: min(QUERIES, len(gallery.pool) // 2)])
        return gallery.of(gallery.pool[len(queries.rows) :][:GALLERY]), queries
    return gallery.of(gallery.pool[:GALLERY]), queries.of(queries.pool[:QUERIES])


def whole(data: ShardedDataset, split: str, rng: np.random.Generator) -> Subset:
    """A split's samples in a random order; of a set that is elsewhere, those of a few of its shards."""
    store = SampleStore(data, [split])
    rows = rng.permutation(len(store))
    if isinstance(data, RemoteDataset):
        rows = rows[np.isin(store.numbers(rows), rng.permutation(len(store.shards))[:FAR])]
    return Subset(store, rows, rows)


def room(*parts: Subset) -> int:
    """Bytes of the shards that they lie in."""
    shards = {part.store.shards[number] for part in parts for number in np.unique(part.store.numbers(part.pool))}
    return sum(shard.bytes for shard in shards)


def names_of(part: Subset, manifest: Manifest) -> list[str]:
    """The class of every image in words; empty where it has none."""
    return [manifest.classes[label] if label >= 0 else "" for label in part.labels]
