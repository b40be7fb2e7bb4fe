"""The images that a report is about: some of the validation split, and others among which their neighbours are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.store import Store
from shards.manifest import Manifest

GALLERY, QUERIES = 4096, 1024  # at most: seconds for the small encoders on a CPU, and for the large ones on a GPU
TRAINED, TESTED = ("train", "unlabeled"), ("val", "test")


@dataclass(frozen=True)
class Part:
    """Some samples of a split, by their rows (n,) in its store."""

    split: str
    store: Store
    rows: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64, -1 unlabelled."""
        return self.store.labels[self.rows]

    def take(self, which: np.ndarray) -> Part:
        return Part(self.split, self.store, self.rows[which])


def choose_parts(root: Path, manifest: Manifest, seed: int = 0) -> tuple[Part, Part]:
    """Gallery and queries, at random: training and validation images where both are there, else two parts of one split."""
    filled = [name for name, split in manifest.splits.items() if split.samples]
    trained = next((name for name in TRAINED if name in filled), filled[0])
    tested = next((name for name in TESTED if name in filled), trained)
    rng = np.random.default_rng(seed)
    stores = {name: Store(root, manifest, [name]) for name in {trained, tested}}
    gallery, queries = (rng.permutation(len(stores[name])) for name in (trained, tested))
    if trained == tested:
        queries = queries[: min(QUERIES, len(queries) // 2)]
        gallery = gallery[~np.isin(gallery, queries)]
    return Part(trained, stores[trained], gallery[:GALLERY]), Part(tested, stores[tested], queries[:QUERIES])


def names_of(part: Part, manifest: Manifest) -> list[str]:
    """The class of every image in words; empty where it has none."""
    return [manifest.classes[label] if label >= 0 else "" for label in part.labels]
