"""Encoded images of a shard set, by number.

They are read, not mapped into memory: a mapped file that is cut short ends the process where a read comes back short.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np

from errors import UsageError, UserError
from shards.index import key_of, load_index
from shards.manifest import Manifest, Shard

OPEN = 64  # files held open at a time: the shards of one window of the order, and of the next


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
        self.offset, self.length, self.crc = index["offset"], index["size"], index["crc"]
        self.labels = index["label"].astype(np.int64)
        if self.labels.max(initial=-1) >= len(manifest.classes):
            raise UserError(
                f"{root}: a label is {self.labels.max()}, and there are {len(manifest.classes)} classes; {mend(root)}"
            )
        self.sizes = np.stack([index["width"], index["height"]], 1)
        self.open: OrderedDict[int, BinaryIO] = OrderedDict()  # by shard, the last used at the end
        self.lock = Lock()  # two iterations may read at a time, and one must not close what the other is about to read

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, sample: int) -> np.ndarray:
        """The bytes of an image, (size,) uint8.

        Raises:
            UserError: they cannot be read, or are not the bytes that were checked when the set was built; names shard and key.
                Such bytes must not reach DALI 2.4, whose PNG decoder can end the process. Checked at a few gigabytes a second.
        """
        try:
            with self.lock:
                file = self.opened(self.shard_of(sample))
                data = os.pread(file.fileno(), int(self.length[sample]), int(self.offset[sample]))
        except (OSError, OverflowError) as error:
            raise self.broken(sample, f"cannot be read ({error})") from error
        if len(data) != self.length[sample]:
            raise self.broken(sample, "is cut short")
        if zlib.crc32(data) != self.crc[sample]:
            raise self.broken(sample, "has changed since the set was built")
        return np.frombuffer(data, np.uint8)

    def shard_of(self, sample: int) -> int:
        return int(np.searchsorted(self.starts, sample, "right")) - 1

    def opened(self, shard: int) -> BinaryIO:
        """A shard's file; the one that was used longest ago is closed for it where many are open."""
        if shard not in self.open:
            if len(self.open) == OPEN:
                self.open.popitem(last=False)[1].close()
            self.open[shard] = (self.root / self.files[shard]).open("rb", buffering=0)
        self.open.move_to_end(shard)
        return self.open[shard]

    def broken(self, sample: int, what: str) -> UserError:
        """The error to raise of a sample's image: names shard and key."""
        shard = self.shard_of(sample)
        path = self.root / self.files[shard]
        key = key_of(path.with_suffix(".idx"), sample - int(self.starts[shard]))
        return UserError(f"{path}: the image of sample {key} {what}; {mend(self.root)}")


def shards_of(manifest: Manifest, split: str, root: Path) -> tuple[Shard, ...]:
    if split not in manifest.splits:
        raise UsageError(f"{root}: there is no split '{split}' here, but {', '.join(manifest.splits) or 'none at all'}")
    return manifest.splits[split].shards


def read_index(root: Path, shard: Shard) -> np.ndarray:
    path = root / shard.file
    found = path.stat().st_size if path.exists() else 0
    if found != shard.bytes:
        raise UserError(f"{path}: has {found:,} bytes, and {shard.bytes:,} by dataset.json; {mend(root)}")
    index = load_index(path.with_suffix(".npy"))
    if len(index) != shard.samples:
        raise UserError(f"{path}: its index counts {len(index)} samples, and dataset.json {shard.samples}; {mend(root)}")
    return index


def mend(root: Path) -> str:
    return f"find the damage with `python -m shards verify {root}`"
