"""Whole shards on this machine's disk, shared by all processes that name the same directory.

    shards/<sha256>.tar     a shard; named by its contents, so that a set has the same files whatever its URL
    shards/<sha256>.part    one that is being fetched, of its full length from the start; whoever holds its lock fetches it
    sets/<digest>/          the indices of a set
    claims/<key>            bytes that a reader has in use at a time, and what it takes the cache's limit to be
    lock                    of whoever counts files or removes them

Locks are the kernel's (flock), which end with the process, however it ends. A shard that is open is locked for reading, and what
is locked is not removed to make room. If somebody removes it by hand, whoever has it open reads on. Nothing is flushed to the
disk: what a power cut leaves is noticed by the checksum of each image, and fetched again.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from amdim.errors import UsageError, UserError
from amdim.shards.manifest import Shard

SHARE = 0.5  # of what is free on its disk, for a cache whose size nobody gave


class ShardCache:
    """At most ``limit`` bytes of shards; those that were opened longest ago make room for others.

    Raises:
        UsageError: the directory cannot be written.
    """

    def __init__(self, directory: Path | None = None, limit: float | None = None) -> None:
        self.directory = directory or default_directory()
        self.shards, self.claims, self.sets = (self.directory / name for name in ("shards", "claims", "sets"))
        try:
            with self.locked():
                free = shutil.disk_usage(self.directory).free + sum(size_of(path) for path in self.shards.iterdir())
        except OSError as error:
            raise UsageError(f"--cache-dir {self.directory}: cannot be written ({error.strerror}); give another") from None
        self.limit = int(min(limit or SHARE * free, free))

    def __str__(self) -> str:
        return f"{self.directory}, at most {self.limit / 1e9:,.1f} GB"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among processes, and with all directories there, should somebody have removed them."""
        for each in (self.shards, self.claims, self.sets):
            each.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def tar(self, shard: Shard) -> Path:
        return self.shards / f"{shard.sha256}.tar"

    def part(self, shard: Shard) -> Path:
        return self.shards / f"{shard.sha256}.part"

    def hold(self, shard: Shard) -> BinaryIO | None:
        """A shard that is here, which stays until it is closed; None where it is not. One of another length is removed."""
        path = self.tar(shard)
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != shard.bytes:
            self.forget(file, shard)
        elif locks(file, fcntl.LOCK_SH) and is_at(file, path):
            os.utime(file.fileno())
            return file
        file.close()
        return None

    def begin(self, shard: Shard) -> BinaryIO | None:
        """The file for the bytes of a shard, to be ended by ``finish`` or ``abandon``; None while somebody else writes it."""
        path = self.part(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        if locks(file, fcntl.LOCK_EX) and is_at(file, path) and not self.tar(shard).exists():
            return file
        file.close()
        return None

    def finish(self, part: BinaryIO, shard: Shard) -> BinaryIO:
        """The shard under its name, open as by ``hold``."""
        part.flush()
        self.part(shard).replace(self.tar(shard))
        fcntl.flock(part, fcntl.LOCK_SH)
        return part

    def abandon(self, part: BinaryIO, shard: Shard) -> None:
        self.part(shard).unlink(missing_ok=True)
        part.close()

    def forget(self, file: BinaryIO, shard: Shard) -> None:
        """Removes a shard that was found damaged, unless another one has taken its place."""
        if is_at(file, self.tar(shard)):
            self.tar(shard).unlink()

    def moved(self, shard: Shard) -> float:
        """When somebody last wrote to the file that a shard is fetched into; 0 where there is none."""
        return last_use(self.part(shard))

    def make_room(self, part: BinaryIO, size: int) -> bool:
        """Takes ``size`` bytes for a file that was begun. False where all that could make room is in use.

        Raises:
            UserError: the disk is full, and none of it is ours to free.
        """
        with self.locked():
            own = os.fstat(part.fileno()).st_ino
            oldest = sorted((path for path in self.shards.iterdir() if inode(path) != own), key=last_use)
            excess = sum(map(size_of, oldest)) + size - self.limit
            for path in oldest:
                if excess > 0 and (freed := remove(path)):
                    excess -= freed
            return excess <= 0 and self.allocate(part, size, oldest)

    def allocate(self, part: BinaryIO, size: int, oldest: list[Path]) -> bool:
        for path in [*oldest, None]:
            try:
                os.posix_fallocate(part.fileno(), 0, size)
                return True
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            if path is not None:
                remove(path)
        wanted = f"with {size / 1e6:,.1f} MB wanted for a shard"
        raise UserError(f"{self.directory}: the disk is full, {wanted}; free some, or give another --cache-dir")

    def claim(self, key: str, size: int) -> BinaryIO:
        """Books ``size`` bytes for a reader until the file is closed; readers of one key have the same shards in use.

        Raises:
            UsageError: they do not fit beside what others have booked.
        """
        with self.locked():
            others = [booked(path) for path in self.claims.iterdir() if path.name != key]
            self.admit(size, sum(each.size for each in others), min((each.limit for each in others), default=self.limit))
            file = os.fdopen(os.open(self.claims / key, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
            fcntl.flock(file, fcntl.LOCK_SH)
            file.truncate(0)
            file.write(b"%d %d\n" % (size, self.limit))
        return file

    def admit(self, size: int, others: int = 0, theirs: float = math.inf) -> None:
        """
        Args:
            size: bytes in use at a time.
            others: by other runs.
            theirs: the smallest limit among these, which remove what is beyond it, whoever brought it.

        Raises:
            UsageError: the cache cannot hold so much.
        """
        limit = min(self.limit, theirs)
        if size + others > limit:
            beside = f", beside {gb(others)} of other runs that share it" if others else ""
            whose = " by another run's --cache-gb" if limit < self.limit else ""
            advice = f"give --cache-gb {(size + others) / 1e9 * 1.01:.3g} or more, on a disk that has them free"
            raise UsageError(
                f"--cache-dir {self.directory}: holds {gb(limit)}{whose}, and {gb(size)} of shards are in use at a time{beside}; "
                f"{'give another --cache-dir' if whose else advice}"
            )


def default_directory() -> Path:
    """As the XDG base directories have it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "amdim"


def locks(file: BinaryIO, kind: int) -> bool:
    """Whether the lock is ours now; it is not waited for."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(path: Path) -> int:
    """Removes a file that nobody has locked; the bytes that it had."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        if locks(file, fcntl.LOCK_EX) and is_at(file, path):
            path.unlink()
            return os.fstat(file.fileno()).st_size
    return 0


class Claim(NamedTuple):
    """Bytes that a reader has in use at a time, and the limit of its cache."""

    size: int = 0
    limit: float = math.inf


def booked(claim: Path) -> Claim:
    """What a claim says; one that nobody holds any more is removed."""
    if not remove(claim):
        with suppress(OSError, ValueError):
            return Claim(*map(int, claim.read_bytes().split()))
    return Claim()


def is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    return os.fstat(file.fileno()).st_ino == inode(path)


def inode(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_ino
    return 0


def size_of(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def last_use(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
