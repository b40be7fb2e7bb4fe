"""A shard set in a bucket or on a web server: whole shards are brought ahead of need into a cache, and read there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import RLock
from typing import BinaryIO

import numpy as np

from amdim.errors import UserError, warn
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.fetch_shard import fetch_shard
from amdim.pipeline.fetch_thread import FetchThread
from amdim.pipeline.object_store import ObjectStore
from amdim.pipeline.shard_cache import ShardCache
from amdim.pipeline.shard_prefetch import ShardPrefetcher
from amdim.pipeline.shard_schedule import ShardUse
from amdim.pipeline.url import Url, is_url, parse
from amdim.shards import manifest as manifests
from amdim.shards.atomic import atomic
from amdim.shards.manifest import Shard

SAY_AFTER = 30.0  # seconds of waiting for a shard, and as often again
SMALL_AT_ONCE = 16  # indices fetched at a time


class RemoteDataset(ShardedDataset):
    """The set at a URL. Its manifest is fetched anew each time, which shows at once whether the endpoint answers.

    Raises:
        UsageError, UserError: there is no set, or no way to it; names URL, without its secrets, and cause.
    """

    def __init__(self, url: Url, cache: ShardCache) -> None:
        self.endpoint, self.cache, self.name = ObjectStore(url), cache, url.name
        found = asyncio.run(self.endpoint.read(manifests.FILE))
        self.manifest = manifests.parse(found, self.endpoint.path(manifests.FILE), lambda: self.mend)
        check_hashes(self.manifest, self.endpoint.path(manifests.FILE))
        self.digest = hashlib.sha256(found).hexdigest()
        self.root = cache.sets / self.digest
        self.received: dict[Shard, int] = {}
        self.waited = 0.0  # seconds in all
        self.lock = RLock()
        self.fetcher: FetchThread | None = None
        self.claimed: BinaryIO | None = None
        self.coming = ShardPrefetcher(self.fetch, iter(()), 0, 0)

    def __str__(self) -> str:
        return self.endpoint.url.shown

    @property
    def mend(self) -> str:
        return "run `python -m shards verify` on the set that was copied there, and copy it again"

    def indices(self, shards: Sequence[Shard]) -> list[np.ndarray]:
        self.root.mkdir(exist_ok=True)
        missing = [(self.root / shard.file).with_suffix(".npy") for shard in shards if not self.has_rows(shard)]
        asyncio.run(self.fetch_beside(missing))
        return [self.rows(shard) for shard in shards]

    def has_rows(self, shard: Shard) -> bool:
        try:
            self.rows(shard)
        except UserError:
            return False
        return True

    def rows(self, shard: Shard) -> np.ndarray:
        try:
            return super().rows(shard)
        except UserError:
            path = self.endpoint.path(Path(shard.file).with_suffix(".npy").name)
            raise UserError(f"{path}: is no index of {shard.file} that this version reads; {self.mend}") from None

    def idx(self, shard: Shard) -> Path:
        path = super().idx(shard)
        if not path.exists():
            asyncio.run(self.fetch_beside([path]))
        return path

    async def fetch_beside(self, paths: list[Path]) -> None:
        """Small files that stand beside the shards, into the cache under the same names."""
        turn = asyncio.Semaphore(SMALL_AT_ONCE)

        async def fetch(path: Path) -> None:
            async with turn:
                found = await self.endpoint.read(path.name)
            with atomic(path) as file:
                file.write(found)

        await asyncio.gather(*map(fetch, paths))

    def open(self, shard: Shard) -> BinaryIO:
        """A shard's file; waits for it, and says so when that takes long.

        Raises:
            UserError: it cannot be had; names URL and cause.
        """
        began, file = time.monotonic(), self.coming.now(shard)
        while not file.done():
            self.wait(file, shard, began)
        self.waited += time.monotonic() - began
        if file.cancelled():
            raise UserError(f"{self.path(shard)}: was still to be read when the set was closed")
        return file.result()

    def wait(self, file: Future[BinaryIO], shard: Shard, began: float) -> None:
        try:
            file.exception(SAY_AFTER)
        except TimeoutError:
            come = f"; {self.received[shard] / shard.bytes:.0%} have come" if shard in self.received else ""
            warn(f"{self.path(shard)}: waiting for it since {time.monotonic() - began:.0f} s{come}")

    def fetch(self, shard: Shard) -> Future[BinaryIO]:
        if self.fetcher is None:
            self.fetcher = FetchThread(lambda shard: fetch_shard(shard, self.cache, self.endpoint, self.received))
        return self.fetcher.fetch(shard)

    def renew(self, shard: Shard) -> bool:
        """Removes the copy in the cache, which is damaged."""
        warn(f"{self.cache.tar(shard)}: is damaged, and fetched again")
        with self.lock:
            self.cache.forget(self.open(shard), shard)
            self.coming.again(shard)
        return True

    def admit(self, room: int) -> None:
        self.cache.admit(room)

    def expect(self, needs: Iterator[ShardUse], room: int, horizon: int, ranks: int = 1) -> None:
        reader = of_job() if ranks > 1 else secrets.token_hex(8)
        self.close()
        with self.lock:
            self.claimed = self.cache.claim(f"{self.digest[:16]}-{reader}", room)
            self.coming = ShardPrefetcher(self.fetch, needs, room, horizon)

    def reach(self, step: int) -> None:
        with self.lock:
            self.coming.reach(step)

    def close(self) -> None:
        """Lets go of all shards, so that others may have their place, and of what is under way; ``expect`` begins anew."""
        self.coming.cancel()  # first: who waits has the lock
        with self.lock:
            self.coming.close()
            if self.fetcher:
                self.fetcher.close()
                self.fetcher = None
            if self.claimed:
                self.claimed.close()


def of_job() -> str:
    """A name that the ranks of a run on this host have in common, and no other run has: they read the same shards."""
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID")
    job = [platform.node(), *(os.environ.get(name, "") for name in names)]
    return f"ranks-{hashlib.sha256(' '.join(job).encode()).hexdigest()[:16]}"


def check_hashes(manifest: manifests.Manifest, path: str) -> None:
    """That hashes are such: they become names of files here, and somebody else wrote them."""
    for split in manifest.splits.values():
        for shard in split.shards:
            if not re.fullmatch("[0-9a-f]{64}", shard.sha256):
                raise UserError(f"{path}: damaged ({shard.file} has no SHA-256)")


def open_dataset(data: Path | str, cache_dir: Path | None = None, cache_gb: float | None = None) -> ShardedDataset:
    """The set in a directory, or at a URL.

    Args:
        cache_dir, cache_gb: where shards from a URL are kept, and how many; see ``Cache``.

    Raises:
        UsageError, UserError: there is none.
    """
    if not is_url(data):
        return ShardedDataset(Path(data))
    url = parse(str(data))  # before a directory is made
    return RemoteDataset(url, ShardCache(cache_dir, cache_gb and cache_gb * 1e9))
