"""Encoded images of a shard set, by number.

They are read, not mapped into memory: a mapped file that is cut short ends the process where a read comes back short.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from amdim.errors import UsageError, UserError
from amdim.pipeline.dataset import ShardedDataset, as_dataset
from amdim.shards.index import key_of
from amdim.shards.manifest import Shard

DECODED = 2**30  # bytes that the images of a batch decode to, at most; a graph holds a few batches


class SampleStore:
    """The samples of some splits, numbered from 0 in the order of the manifest.

    Attributes:
        shards: those of the splits.
        shard_sizes: samples of each shard.
        labels: (samples,) int64, -1 unlabelled.
        sizes: (samples, 2) int, width and height of the stored images.
    """

    def __init__(self, root: Path | ShardedDataset, splits: Sequence[str]) -> None:
        self.set = as_dataset(root)
        self.shards = [shard for split in splits for shard in shards_of(self.set, split)]
        indices = self.set.indices(self.shards)
        self.shard_sizes = [len(index) for index in indices]
        self.starts = np.cumsum([0, *self.shard_sizes])
        index = np.concatenate(indices)
        self.offset, self.length, self.crc = index["offset"], index["size"], index["crc"]
        self.labels = index["label"].astype(np.int64)
        classes = len(self.set.manifest.classes)
        if self.labels.max(initial=-1) >= classes:
            raise UserError(f"{self.set}: a label is {self.labels.max()}, and there are {classes} classes; {self.set.mend}")
        self.sizes = np.stack([index["width"], index["height"]], 1)

    def __len__(self) -> int:
        return len(self.labels)

    def numbers(self, samples: np.ndarray | int) -> np.ndarray:
        """The number of the shard that each sample is in."""
        return np.searchsorted(self.starts, samples, "right") - 1

    def batch(self, samples: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        """The bytes of several images. The system is told of all before the first is read: a disk then fetches many at a time."""
        for sample in samples:  # what goes wrong here goes wrong again when it is read
            self.at(sample, lambda file, start, size: os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED))
        return [self.encoded(sample) for sample in samples]

    def encoded(self, sample: int) -> np.ndarray:
        """The bytes of an image, (size,) uint8.

        Raises:
            UserError: they cannot be read, or are not the bytes that were checked when the set was built; names shard and key.
                Such bytes must not reach DALI 2.4, whose PNG decoder can end the process. Checked at a few gigabytes a second.
        """
        data, fault = self.read(sample)
        if fault and self.set.renew(self.shards[self.shard_of(sample)]):
            data, fault = self.read(sample)
        if fault:
            raise self.broken(sample, fault)
        return np.frombuffer(data, np.uint8)

    def read(self, sample: int) -> tuple[bytes, str]:
        """The bytes of an image, and what is wrong with them: nothing, where that is empty."""
        data, fault = self.at(sample, lambda file, start, size: os.pread(file, size, start))
        if fault:
            return b"", fault
        if data is None or len(data) != self.length[sample]:
            return b"", "is cut short"
        return data, "" if zlib.crc32(data) == self.crc[sample] else "has changed since the set was built"

    def at(self, sample: int, act: Callable[[int, int, int], bytes | None]) -> tuple[bytes | None, str]:
        """What ``act`` makes of an image's file descriptor, its place there and its size; and what went wrong."""
        try:
            with self.set.lock:
                file = self.set.open(self.shards[self.shard_of(sample)])
                return act(file.fileno(), int(self.offset[sample]), int(self.length[sample])), ""
        except (OSError, OverflowError) as error:
            return None, f"cannot be read ({error})"

    def shard_of(self, sample: int) -> int:
        return int(self.numbers(sample))

    def broken(self, sample: int, what: str) -> UserError:
        """The error to raise of a sample's image: names shard and key."""
        shard = self.shard_of(sample)
        row = sample - int(self.starts[shard])
        try:
            key = key_of(self.set.idx(self.shards[shard]), row)
        except UserError:  # what names it is damaged too, or not there
            key = f"{row + 1}, counted from the first,"
        return UserError(f"{self.set.path(self.shards[shard])}: the image of sample {key} {what}; {self.set.mend}")


def batch_that_fits(sizes: np.ndarray, most: int) -> int:
    """The largest of ``most``, half of it, a quarter, … with which no batch, in this order, decodes to more than DECODED bytes.

    Args:
        sizes: (n, 2) int, width and height of the images.
        most: images at a time where they are small.
    """
    size = 3 * sizes.astype(np.int64).prod(1)
    while most > 1 and len(size) and np.add.reduceat(size, np.arange(0, len(size), most)).max() > DECODED:
        most //= 2
    return most


def shards_of(where: ShardedDataset, split: str) -> tuple[Shard, ...]:
    splits = where.manifest.splits
    if split not in splits:
        raise UsageError(f"{where}: there is no split '{split}' here, but {', '.join(splits) or 'none at all'}")
    return splits[split].shards
