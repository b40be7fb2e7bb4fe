"""One shard from an endpoint, checked against the manifest, into the cache."""

from __future__ import annotations

import asyncio
import hashlib
from random import Random
from typing import BinaryIO

from obstore.exceptions import BaseError

from amdim.errors import UserError
from amdim.pipeline.object_store import PATIENCE, ObjectStore
from amdim.pipeline.object_store_errors import Fault, explain
from amdim.pipeline.shard_cache import ShardCache
from amdim.shards.manifest import Shard

TRIES = 6  # of bodies that break off or are not what they should be; obstore has its own for whole requests
BACKOFF, LONGEST = 0.1, 10.0  # seconds: doubled with each try, and at most
jitter = Random()  # of its own: the state of Python's shared one is part of a run
POLL = 0.05  # seconds between looks at a file that another process fetches, or at a cache that is full of files in use


async def fetch_shard(shard: Shard, cache: ShardCache, endpoint: ObjectStore, received: dict[Shard, int]) -> BinaryIO:
    """A shard, open, out of the cache; fetched where neither we nor another process of this machine have done so.

    Args:
        received: is told the bytes that have come so far.

    Raises:
        UserError: names URL and cause, or what is wrong with the cache.
    """
    full = idle = moved = 0.0  # seconds for which there was no room; for which another process wrote nothing; when it last did
    received.pop(shard, None)
    try:
        while max(full, idle) < PATIENCE:
            if held := cache.hold(shard):
                return held
            if part := cache.begin(shard):
                if fetched := await fill(part, shard, cache, endpoint, received):
                    return fetched
                full += POLL
            else:
                before, moved = moved, cache.moved(shard)
                idle = idle + POLL if moved == before else 0.0
            await asyncio.sleep(POLL)
    except OSError as error:
        raise UserError(f"{cache.directory}: cannot be used ({error.strerror}); give another --cache-dir") from error
    if idle >= PATIENCE:
        stuck = f"another process fetches this and has written nothing for {PATIENCE:.0f} s"
        raise UserError(f"{cache.part(shard)}: {stuck}; see what became of it, or give another --cache-dir")
    raise UserError(f"{cache.directory}: is full of shards that other runs use; give --cache-gb more, or another --cache-dir")


async def fill(
    part: BinaryIO, shard: Shard, cache: ShardCache, endpoint: ObjectStore, received: dict[Shard, int]
) -> BinaryIO | None:
    """Fetches what was begun; None, and nothing left of it, where there is no room at the moment, or somebody removed it."""
    try:
        if cache.make_room(part, shard.bytes):
            await download(shard, part, endpoint, received)
            return cache.finish(part, shard)
    except BaseException as error:
        cache.abandon(part, shard)
        if isinstance(error, FileNotFoundError):
            return None
        raise
    cache.abandon(part, shard)
    return None


async def download(shard: Shard, part: BinaryIO, endpoint: ObjectStore, received: dict[Shard, int]) -> None:
    """Tries until the bytes are those of the manifest."""
    tries = 1
    while fault := await attempted(shard, part, endpoint, received):
        if not fault.broken or tries == TRIES:
            often = f", {tries} times" if tries > 1 else ""
            raise UserError(f"{endpoint.path(shard.file)}: {fault.words}{often}")
        await asyncio.sleep(min(LONGEST, BACKOFF * 2**tries) * jitter.uniform(0.5, 1))
        tries += 1


async def attempted(shard: Shard, part: BinaryIO, endpoint: ObjectStore, received: dict[Shard, int]) -> Fault | None:
    """What was wrong with one try; None for nothing."""
    try:
        found = await copy(shard, part, endpoint, received)
    except (FileNotFoundError, BaseError) as error:
        return explain(error, endpoint.url.scheme)
    return None if found == shard.sha256 else Fault("its bytes are not those that dataset.json names", broken=True)


async def copy(shard: Shard, part: BinaryIO, endpoint: ObjectStore, received: dict[Shard, int]) -> str:
    """Writes the body over what is in the file; the SHA-256 of as many bytes as there should be, or of fewer."""
    digest, received[shard] = hashlib.sha256(), 0
    part.seek(0)
    async for piece in endpoint.stream(shard.file):
        received[shard] += len(piece)
        if received[shard] > shard.bytes:
            return "longer than it should be"
        digest.update(piece)
        part.write(piece)
    return digest.hexdigest()
