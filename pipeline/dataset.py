"""A shard set in a directory of this machine; ``pipeline.remote_dataset`` has one that is elsewhere, and does the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import BinaryIO, Self

import numpy as np

from amdim.errors import UserError
from amdim.pipeline.shard_schedule import ShardUse
from amdim.shards import manifest as manifests
from amdim.shards.index import load_index
from amdim.shards.manifest import Manifest, Shard

OPEN = 64  # files held open at a time: the shards of one window of the order, and of the next


class ShardedDataset:
    """What a ``Store`` reads from: as text, the place that people know it by.

    Attributes:
        root: the directory of its indices.
        name: for runs that are named by their data.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, root.name
        self.manifest: Manifest = manifests.load(root)
        self.lock = RLock()  # two iterations may read at a time, and one must not close what the other is about to read
        self.opened: OrderedDict[Shard, BinaryIO] = OrderedDict()  # the last used at the end

    def __str__(self) -> str:
        return str(self.root)

    @property
    def mend(self) -> str:
        """What to do about damage."""
        return f"find the damage with `python -m shards verify {self}`"

    def path(self, shard: Shard) -> str:
        """Where a shard is, for messages."""
        return f"{self}/{shard.file}"

    def indices(self, shards: Sequence[Shard]) -> list[np.ndarray]:
        """A row a sample, a table a shard.

        Raises:
            UserError: a shard or an index is not what the manifest says.
        """
        return [self.index(shard) for shard in shards]

    def index(self, shard: Shard) -> np.ndarray:
        path = self.root / shard.file
        found = path.stat().st_size if path.exists() else 0
        if found != shard.bytes:
            raise UserError(f"{path}: has {found:,} bytes, and {shard.bytes:,} by dataset.json; {self.mend}")
        return self.rows(shard)

    def rows(self, shard: Shard) -> np.ndarray:
        index = load_index((self.root / shard.file).with_suffix(".npy"))
        if len(index) != shard.samples:
            counts = f"counts {len(index)} samples, and dataset.json {shard.samples}"
            raise UserError(f"{self.path(shard)}: its index {counts}; {self.mend}")
        return index

    def idx(self, shard: Shard) -> Path:
        """The file that names the members of a shard's samples."""
        return (self.root / shard.file).with_suffix(".idx")

    def open(self, shard: Shard) -> BinaryIO:
        """A shard's file; the one that was used longest ago is closed for it where many are open."""
        if shard not in self.opened:
            if len(self.opened) == OPEN:
                self.opened.popitem(last=False)[1].close()
            self.opened[shard] = (self.root / shard.file).open("rb", buffering=0)
        self.opened.move_to_end(shard)
        return self.opened[shard]

    def renew(self, shard: Shard) -> bool:  # noqa: ARG002 - there is but this copy
        """Whether there may be a better copy of a shard that is damaged, which the next ``open`` will bring."""
        return False

    def admit(self, room: int) -> None:
        """Refuses a reader that has shards of ``room`` bytes in use at a time, where there is no place for them."""

    def expect(self, needs: Iterator[ShardUse], room: int, horizon: int, ranks: int = 1) -> None:
        """Says which shards will be read, in order; those of the next ``horizon`` steps, at most, may be brought ahead.

        Args:
            room: bytes of shards to have at a time, by all of the ``ranks`` that read the same on this host.
        """

    def reach(self, step: int) -> None:
        """Says that this step is read now, and none before it will be."""

    def close(self) -> None:
        """Lets go of all files; who reads on opens them anew, or, of a set that is elsewhere, is refused."""
        with self.lock:
            while self.opened:
                self.opened.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def as_dataset(root: Path | ShardedDataset) -> ShardedDataset:
    return root if isinstance(root, ShardedDataset) else ShardedDataset(Path(root))
