"""Sets that are published as an archive of files of equal records: reading one record, and unpacking the files for it.

A compressed archive cannot be read at random, so its files are unpacked into the output directory while a set is built.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UserError
from amdim.shards.atomic import atomic
from amdim.shards.disk_space import check_space
from amdim.shards.sources.base import Raw, Rejected, Sample
from amdim.shards.tar_reader import Readable, damage_told, members, read_bytes


class File(NamedTuple):
    """A file of an archive or a directory: its name without directories, its length, and where it can be read from."""

    name: str
    size: int
    content: Readable


class Layout(NamedTuple):
    """How pixels lie in a record: bytes (channels, and then two sides in this order), turned by ``axes`` into (H, W, 3)."""

    shape: tuple[int, int, int]
    axes: tuple[int, int, int]


def files_of(path: Path, longest: Mapping[str, int]) -> Iterator[File]:
    """Those files of an archive (``.tar.gz`` or ``.tar``) or directory that ``longest`` names, each to be read before the next.

    ``longest`` is the length each has as published: what is longer is refused, so that no small archive can fill the disk.
    Raises UserError when the archive's headers are damaged; what its contents raise is for ``damage_told``.
    """
    if path.is_dir():
        yield from _in_directory(path, longest)
        return
    limit = 2 * sum(longest.values()) + 2**24
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as file:
        for member in members(file, str(path)):
            name = PurePosixPath(member.name).name
            if member.offset + member.size > limit or member.size > longest.get(name, limit):
                raise UserError(f"{path}: {member.name} is longer than published; fetch it again")
            if name in longest and not member.fault:
                yield File(name, member.size, file)


def _in_directory(path: Path, longest: Mapping[str, int]) -> Iterator[File]:
    for name in longest:
        if (path / name).is_file():
            with (path / name).open("rb") as file:
                yield File(name, (path / name).stat().st_size, file)


def locate(src: Path, archive: str, directory: str, files: Sequence[str]) -> Path | None:
    """The archive or unpacked directory that ``src`` is or holds."""
    if src.is_file():
        return src if src.name.removesuffix(".gz") == archive.removesuffix(".gz") else None
    archives = [src / archive, src / archive.removesuffix(".gz")]
    found = [path for path in archives if path.is_file()]
    found += [path for path in (src / directory, src) if any((path / name).is_file() for name in files)]
    return found[0] if found else None


def unpack(
    path: Path, longest: Mapping[str, int], layout: Layout, names: Sequence[str], directory: Path
) -> Callable[[Sample], Raw]:
    """Copies the files called ``names`` into ``directory``, and returns what reads their records there."""
    check_space(directory.parent, sum(longest[name] for name in names))
    directory.mkdir(exist_ok=True)
    with damage_told(path):
        for found in files_of(path, longest):
            if found.name in names:
                with atomic(directory / found.name) as file:
                    _copy(found, file)
    return partial(read_record, directory, tuple(names), layout)


def _copy(found: File, file: BinaryIO) -> None:
    left = found.size
    while left:
        chunk = found.content.read(min(left, 2**20))
        if not chunk:
            raise EOFError(f"{found.name} is cut short")
        file.write(chunk)
        left -= len(chunk)


def read_record(directory: Path, names: Sequence[str], layout: Layout, sample: Sample) -> Raw:
    """The picture of a sample whose place is (number of the file in ``names``, offset of its pixels); raises Rejected."""
    if sample.fault:
        raise Rejected(sample.fault)
    number, offset = sample.place
    data = read_bytes(directory / names[number], offset, int(np.prod(layout.shape)))
    pixels: NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(layout.shape).transpose(layout.axes)
    return Raw(np.ascontiguousarray(pixels))
