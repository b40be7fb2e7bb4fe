"""Tar archives read in place: members are found by their headers and read at random; none is unpacked or believed.

A header may name a link, a device, a path out of the archive, or gigabytes that are not there. What is no plain file below the
archive's own root is told as a fault; an archive that does not end as tar files end is refused as a whole.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from amdim.errors import UsageError, UserError
from amdim.shards.io_errors import failures_told
from amdim.shards.sources.base import Raw, Rejected, Sample

BLOCK = 512
MAX_HEADER = 2**20  # bytes of a long name or of extended fields, which tarfile reads whole
MAX_IMAGE = 2**29  # bytes; an encoded image of the largest accepted size is smaller
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}


class DamagedTar(UserError):
    """An archive that ends too early, or has a header that is none; ``what`` is the message without what to do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; fetch it again")
        self.what = what


class Readable(Protocol):
    """What is asked of an open archive: a file, or a compressed one, which is slow to go back."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...

    def tell(self) -> int: ...


class Member(NamedTuple):
    """One file of an archive: ``offset`` and ``size`` in bytes are those of its contents; ``fault`` is empty for a plain file."""

    name: str
    offset: int
    size: int
    fault: str


def members(file: Readable, name: str, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The members, directories left out, of the archive in bytes ``start`` to ``end`` of ``file``; ``name`` is for messages.

    Offsets are those in ``file``. After a member is yielded, ``file`` stands at its contents and may be read from there on.
    Raises DamagedTar.
    """
    window = _Window(file, start, end)
    place = start
    try:
        # The names' encoding is fixed, as tarfile would take the locale's. The file is the caller's to close.
        archive: Any = tarfile.TarFile(fileobj=cast(Any, window), mode="r", encoding="utf-8", errors="surrogateescape")
        while (info := archive.next()) is not None:
            archive.members.clear()  # or it keeps a kilobyte for each of them
            if info.offset_data <= place:
                raise ValueError("a header that leads backwards")
            place = info.offset_data
            if end is not None and place + info.size > end:
                raise ValueError("a member longer than its archive")
            if not info.isdir():
                yield Member(info.name.removeprefix("./"), place, info.size, _fault(info))
    except Exception as error:  # tarfile raises whatever the damage makes it raise
        raise DamagedTar(f"{name}: damaged behind byte {place:,} ({error or type(error).__name__})") from None
    if window.last != bytes(BLOCK):
        raise DamagedTar(f"{name}: cut short or damaged behind byte {place:,}, as no end of the archive is there")


def open_plain(path: Path) -> BinaryIO:
    """An archive opened to be read at random; raises UsageError when it is compressed."""
    file = path.open("rb")
    start = file.read(2)
    file.seek(0)
    if start in COMPRESSED:
        file.close()
        raise UsageError(f"{path}: compressed, so nothing in it can be found by offset; `{COMPRESSED[start]} {path}` first")
    return file


def read_span(root: Path, files: Sequence[str], sample: Sample) -> Raw:
    """The bytes of a sample whose place is (number of the file in ``files``, offset, size); raises Rejected."""
    if sample.fault:
        raise Rejected(sample.fault)
    number, offset, size = sample.place
    return Raw(read_bytes(root / files[number], offset, size))


def read_bytes(path: Path, offset: int, size: int) -> bytes:
    """Part of a file, which is opened for it, so that none stays open; raises Rejected, or UserError for a file that fails."""
    if size > MAX_IMAGE:
        raise Rejected("too large")
    with failures_told(path), path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, offset)
    if len(data) < size:
        raise Rejected("cut short")
    return data


def small_files(path: Path, limit: int) -> dict[str, bytes]:
    """All plain files of a small archive, gzipped or not, by name; raises UserError if it is damaged or over ``limit`` bytes."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with damage_told(path), gzip.open(path) if zipped else path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UserError(f"{path}: unpacks to more than {limit / 1e6:,.0f} MB, which the real one does not; fetch it again")
    found = members(io.BytesIO(data), str(path))
    return {each.name: data[each.offset : each.offset + each.size] for each in found if not each.fault}


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turns what a damaged compressed file raises when it is read into UserError."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); fetch it again") from None


def _fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link in the archive"
    if not info.isreg():
        return "a device or pipe in the archive"
    if info.issparse():
        return "a sparse file in the archive"
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return "a path that leads out of the archive"
    return ""


class _Window:
    """A file up to ``end``, which keeps the last block read, and reads no header of unreasonable length."""

    def __init__(self, file: Readable, start: int, end: int | None) -> None:
        self.file, self.end, self.last = file, end, b""
        if file.tell() != start:
            file.seek(start)

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int) -> int:
        return self.file.seek(offset)

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        left = size if self.end is None else min(size, self.end - self.file.tell())
        self.last = self.file.read(max(left, 0))
        return self.last
