"""Encoded images of a shard set, by number, out of memory-mapped shards: reading one costs a page fault at most."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from errors import UsageError, UserError
from shards.index import load_index
from shards.manifest import Manifest, Shard


class Store:
    """The samples of some splits, numbered from 0 in the order of the manifest.

    Attributes:
        shard_sizes: samples of each shard.
        labels: (samples,) int64, -1 unlabelled.
        sizes: (samples, 2) int, width and height of the stored images.
    """

    def __init__(self, root: Path, manifest: Manifest, splits: Sequence[str]) -> None:
        self.root = root
        shards = [shard for split in splits for shard in shards_of(manifest, split, root)]
        self.files = [shard.file for shard in shards]
        indices = [read_index(root, shard) for shard in shards]
        self.shard_sizes = [len(index) for index in indices]
        self.starts = np.cumsum([0, *self.shard_sizes])
        index = np.concatenate(indices)
        self.offset, self.length = index["offset"], index["size"]
        self.labels = index["label"].astype(np.int64)
        self.sizes = np.stack([index["width"], index["height"]], 1)
        self.maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, sample: int) -> np.ndarray:
        """The bytes of an image, (size,) uint8, still in the page cache: nothing is copied."""
        shard = int(np.searchsorted(self.starts, sample, "right")) - 1
        if shard not in self.maps:
            self.maps[shard] = map_file(self.root / self.files[shard])
        return self.maps[shard][self.offset[sample] : self.offset[sample] + self.length[sample]]


def shards_of(manifest: Manifest, split: str, root: Path) -> tuple[Shard, ...]:
    if split not in manifest.splits:
        raise UsageError(f"{root}: there is no split '{split}' here, but {', '.join(manifest.splits)}")
    return manifest.splits[split].shards


def read_index(root: Path, shard: Shard) -> np.ndarray:
    index = load_index((root / shard.file).with_suffix(".npy"))
    if len(index) != shard.samples:
        raise UserError(
            f"{root / shard.file}: its index counts {len(index)} samples and dataset.json {shard.samples}; {mend(root)}"
        )
    return index


def map_file(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def mend(root: Path) -> str:
    return f"find the damage with `python -m shards verify {root}`"
