"""The images that a report is about: some of the validation split, and others among which their neighbours are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.remote import RemoteSet
from pipeline.shard_set import ShardSet
from pipeline.store import Store, at_a_time
from shards.manifest import Manifest

GALLERY, QUERIES = 4096, 1024  # at most: seconds for the small encoders on a CPU, and for the large ones on a GPU
TRAINED, TESTED = ("train", "unlabeled"), ("val", "test")
FAR = 4  # shards of a split that are read of a set that is elsewhere, as each of them has to come whole


@dataclass(frozen=True)
class Part:
    """Some samples of a split, by their rows (n,) in its store; ``pool`` are all rows that may be read, in a random order."""

    store: Store
    rows: np.ndarray
    pool: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, -1 unlabelled."""
        return self.store.labels[self.rows]

    def batches(self, most: int) -> Iterator[np.ndarray]:
        """The rows so many at a time, fewer where the images are large."""
        count = at_a_time(self.store.sizes[self.rows], most)
        return (self.rows[start : start + count] for start in range(0, len(self.rows), count))

    def take(self, which: np.ndarray) -> Part:
        return self.of(self.rows[which])

    def of(self, rows: np.ndarray) -> Part:
        return Part(self.store, rows, self.pool)


def choose_parts(data: ShardSet, seed: int = 0) -> tuple[Part, Part]:
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


def whole(data: ShardSet, split: str, rng: np.random.Generator) -> Part:
    """A split's samples in a random order; of a set that is elsewhere, those of a few of its shards."""
    store = Store(data, [split])
    rows = rng.permutation(len(store))
    if isinstance(data, RemoteSet):
        rows = rows[np.isin(store.numbers(rows), rng.permutation(len(store.shards))[:FAR])]
    return Part(store, rows, rows)


def room(*parts: Part) -> int:
    """Bytes of the shards that they lie in."""
    shards = {part.store.shards[number] for part in parts for number in np.unique(part.store.numbers(part.pool))}
    return sum(shard.bytes for shard in shards)


def names_of(part: Part, manifest: Manifest) -> list[str]:
    """The class of every image in words; empty where it has none."""
    return [manifest.classes[label] if label >= 0 else "" for label in part.labels]
