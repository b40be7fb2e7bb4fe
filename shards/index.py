"""Where the bytes of every sample lie in a shard.

Beside ``train-00000.tar`` stand ``train-00000.idx``, DALI's index v1.2 (a line a sample: extension, offset, size and name of each
component), and ``train-00000.npy``, a row a sample with what a loader wants to know before it reads: see ``INDEX_DTYPE``.
Offsets come from ``tarfile``, which is right for every kind of tar header; DALI's own ``wds2idx`` is not, for long names.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UserError
from amdim.shards.atomic import atomic
from amdim.shards.images.decode import open_image
from amdim.shards.manifest import how_to_make
from amdim.shards.sources.base import UNLABELLED
from amdim.shards.tar_reader import DamagedTar, members

FIELDS = [("offset", "<i8"), ("size", "<i8"), ("label", "<i4"), ("width", "<i4"), ("height", "<i4"), ("crc", "<u4")]
INDEX_DTYPE = np.dtype(FIELDS)  # of the encoded image: where it lies in the tar, and the CRC-32 of its bytes
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
LABEL_KEYS = ("label", "cls", "class")  # in a sample's json, where it has no cls
MAX_LABEL = 2**20  # bytes of a cls or json that are read for a label
KEY_AND_SUFFIX = re.compile(r"((?:.*/)?[^/.]*)\.([^/]*)", re.DOTALL)  # key and suffix: at the first dot behind the last slash
VERSION = "v1.2"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a sample: ``name`` is ``key.suffix``; ``offset`` and ``size`` in bytes are those of its contents.

    ``fault`` is why it may not be read, for tars of other makers.
    """

    suffix: str
    offset: int
    size: int
    name: str
    fault: str = ""


Entry = tuple[Member, ...]  # the members of one sample


def scan(tar: Path) -> list[Entry]:
    """The samples of a shard in order, read from its tar headers; raises UserError when it is cut short or no tar."""
    try:
        return scan_any(tar)
    except DamagedTar as error:
        raise UserError(f"{error.what}; build the set again with `{_again(tar)}`") from None


def scan_any(tar: Path) -> list[Entry]:
    """The same for a tar that may be of another maker; raises DamagedTar. A name without a dot belongs to no sample."""
    samples: dict[str, list[Member]] = {}
    with tar.open("rb") as file:
        for found in members(file, str(tar)):
            if match := KEY_AND_SUFFIX.fullmatch(found.name):
                samples.setdefault(match[1], []).append(Member(match[2], found.offset, found.size, found.name, found.fault))
    return [tuple(parts) for parts in samples.values()]


def rows(tar: Path, entries: list[Entry]) -> NDArray[np.void]:
    """One ``INDEX_DTYPE`` row a sample; opens every image's header, but decodes no pixels."""
    with tar.open("rb") as file:
        return np.array([row(file, entry) for entry in entries], INDEX_DTYPE)


def row(file: BinaryIO, entry: Entry) -> tuple[int, int, int, int, int, int]:
    """The fields of ``INDEX_DTYPE`` for one sample of an open shard; raises UserError, Rejected or ValueError."""
    member = image_of(entry)
    data = read_member(file, member)
    width, height = open_image(data).size
    return member.offset, member.size, label_of(file, entry), width, height, zlib.crc32(data)


def write_index(tar: Path) -> None:
    """Writes the ``.idx`` and the ``.npy`` of a finished shard."""
    entries = scan(tar)
    with atomic(tar.with_suffix(".idx")) as file:
        file.write(idx_text(entries).encode())
    with atomic(tar.with_suffix(".npy")) as file:
        np.save(file, rows(tar, entries), allow_pickle=False)


def idx_text(entries: list[Entry]) -> str:
    """The contents of the ``.idx`` file."""
    lines = [" ".join(f"{m.suffix} {m.offset} {m.size} {m.name}" for m in entry) for entry in entries]
    return "\n".join([f"{VERSION} {len(entries)}", *lines]) + "\n"


def load_index(path: Path) -> NDArray[np.void]:
    """Maps an ``.npy`` index: (samples,) of ``INDEX_DTYPE``, read-only; raises UserError when it is not one."""
    try:
        index = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(path, error) from None
    if index.dtype != INDEX_DTYPE or index.ndim != 1:
        raise UserError(f"{path}: not an index of this version; build the set again with `{_again(path)}`")
    return index


def read_idx(path: Path) -> list[Entry]:
    """The samples of an ``.idx`` file, in shard order; raises UserError when it is damaged."""
    try:
        head, *lines = path.read_text().splitlines()
        entries = [_parse_line(line) for line in lines]
        if head != f"{VERSION} {len(entries)}":
            raise ValueError(f"its first line is {head!r}, with {len(entries)} samples below")
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from None
    return entries


def key(entry: Entry) -> str:
    """The name its members share."""
    return entry[0].name[: -len(entry[0].suffix) - 1]


def key_of(idx: Path, row: int) -> str:
    """The key of a shard's sample ``row``, for messages."""
    return key(read_idx(idx)[row])


def mask_spans(idx: Path) -> NDArray[np.int64]:
    """(samples, 2): offset and size of each ``.mask.png`` in the shard; size 0 where a sample has none."""
    spans = [[(m.offset, m.size) for m in entry if m.suffix == "mask.png"] for entry in read_idx(idx)]
    return np.array([found[0] if found else (0, 0) for found in spans], np.int64).reshape(-1, 2)


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The contents of one member of an open shard."""
    file.seek(member.offset)
    return file.read(member.size)


def image_of(entry: Entry) -> Member:
    """The image among a sample's members; raises UserError when it has none."""
    for member in entry:
        if member.suffix.lower() in IMAGE_SUFFIXES:
            return member
    raise UserError("no image among its members")


def label_of(file: BinaryIO, entry: Entry) -> int:
    """The class of a sample, from its ``cls``, else its ``json``, -1 when it has none; raises ValueError when it is no number."""
    members = {member.suffix.lower(): member for member in entry if member.size <= MAX_LABEL}
    if "cls" in members:
        return int(read_member(file, members["cls"]))
    fields = json.loads(read_member(file, members["json"])) if "json" in members else {}
    found = [fields[key] for key in LABEL_KEYS if isinstance(fields, dict) and key in fields]
    if found and type(found[0]) is not int:
        raise ValueError(repr(found[0]))
    return found[0] if found else UNLABELLED


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: no readable index ({error}); build the set again with `{_again(path)}`")


def _again(path: Path) -> str:
    return how_to_make(path.parent, overwrite=True)


def _parse_line(line: str) -> Entry:
    words = line.split(" ")
    columns = zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True)
    return tuple(Member(suffix, int(offset), int(size), name) for suffix, offset, size, name in columns)
