"""Places205 (Zhou and others 2014): 2,448,873 images to train and 20,500 to validate, 205 scenes, 256×256 pixels.

The images lie in a folder or an uncompressed tar, as ``a/abbey/gsun_….jpg``, as they are or deep below ``images256``.
``train_places205.csv`` and ``val_places205.csv`` have a row an image: that path, a blank, and its class, from 0.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from amdim.errors import UsageError
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import UNLABELLED, Encoding, Source
from amdim.shards.sources.folder import is_image, kind, read_file, size_of, walk
from amdim.shards.tar_reader import members, open_plain, read_span

CLASSES = 205
TABLES = {"train": "train_places205.csv", "val": "val_places205.csv"}
TARS = ("imagesPlaces205_resize.tar", "imagesPlaces205_resize.tar.gz")  # with the second, opening says what to type
FOLDERS = ("a", "images256", "data/vision/torralba/deeplearning/images256")  # where an unpacked archive has its images
BELOW = ("", "trainvalsplit_places205")  # where the tables may lie
ROOT = "images256/"  # the tables' paths start below it
ROW = re.compile(r"/*(.*\S)[ ,\t]+(\S+)")

Row = tuple[str, int, str]  # split, label, fault
Found = tuple[str, tuple[int, ...], str]  # path relative to the source, place, fault


def source(src: Path, encoding: Encoding) -> Source:
    """The images and tables in ``src``; raises UsageError when one is missing."""
    if not src.is_dir():
        raise UsageError(f"{src}: no such directory; --src is the directory that holds the images and their two tables")
    rows = _rows(src)
    names = _name_classes(rows)
    unpacked = any((src / name).is_dir() for name in FOLDERS)  # it may lie beside the archive it came from
    archive = None if unpacked else next((src / name for name in TARS if (src / name).exists()), None)
    found = _in_tar(archive) if archive else _in_folder(src)
    splits, ignored = _join(found, rows, names, width=3 if archive else 1)
    if all(listing.faulty == len(listing) for listing in splits.values()):
        raise UsageError(f"{archive or src}: no images that the tables name; {TARS[0]}, or the folders a, b, … y go into {src}")
    recipe = {"files": " ".join(listing.fingerprint() for listing in splits.values())}
    read = partial(read_span, src, (archive.name,)) if archive else partial(read_file, src)
    note = f"places205: images in {archive or src}, classes from {' and '.join(TABLES.values())}"
    return Source("places205", names, splits, read, encoding, recipe, ignored, note)


def _rows(src: Path) -> dict[str, Row]:
    """What the tables say of each path. Equal rows are one object, so that millions of them cost little more than the paths."""
    rows: dict[str, Row] = {}
    kept: dict[Row, Row] = {}
    for split, name in TABLES.items():
        table = next((src / below / name for below in BELOW if (src / below / name).exists()), None)
        if table is None:
            raise UsageError(f"{src / name}: missing; it is in trainvalsplit_places205.tar.gz, at places.csail.mit.edu")
        with table.open(encoding="utf-8-sig", errors="surrogateescape") as file:  # a byte order mark is passed over
            for line in filter(None, map(str.strip, file)):
                path, row = _parse(line, split)
                row = (split, UNLABELLED, "two rows in the tables") if path in rows else row
                rows[path] = kept.setdefault(row, row)
    return rows


def _parse(line: str, split: str) -> tuple[str, Row]:
    match = ROW.fullmatch(line)
    if not match:
        return line, (split, UNLABELLED, "its row has no class")
    path, number = match.groups()
    if number.isascii() and number.isdigit() and int(number) < CLASSES:
        return path, (split, int(number), "")
    return path, (split, UNLABELLED, f"its class {number} is none of 0 to {CLASSES - 1}")


def _scene(path: str) -> str:
    """a/apartment_building/outdoor/x.jpg → apartment_building/outdoor."""
    return "/".join(path.split("/")[1:-1])


def _name_classes(rows: dict[str, Row]) -> tuple[str, ...]:
    """The folder most images of a class lie in; the number of a class that has none."""
    counts = Counter((label, _scene(path)) for path, (_, label, fault) in rows.items() if not fault)
    names = {label: scene for (label, scene), _ in sorted(counts.items(), key=lambda item: item[1])}
    return tuple(names.get(label) or str(label) for label in range(CLASSES))


def _in_folder(src: Path) -> Iterator[Found]:
    return ((Path(path).relative_to(src).as_posix(), (size_of(Path(path)),), "") for path in walk(src))


def _in_tar(archive: Path) -> Iterator[Found]:
    with open_plain(archive) as file:
        for member in members(file, str(archive)):
            yield member.name, (0, member.offset, member.size), member.fault


def _join(
    found: Iterator[Found], rows: dict[str, Row], names: Sequence[str], width: int
) -> tuple[dict[str, Listing], Counter[str]]:
    """Images with their rows, which are used up; as faults, rows without an image; an image without a row is of no split."""
    listings, ignored = {split: Listing(width) for split in TABLES}, Counter[str]()
    for path, place, fault in found:
        if not fault and not is_image(path):
            ignored[kind(path)] += 1
            continue
        key = path.rpartition(ROOT)[2]
        if key not in rows and not fault:  # the archive holds the images to test on too, whose classes are not published
            ignored["in no table"] += 1
            continue
        split, label, wrong = rows.pop(key, ("train", UNLABELLED, ""))
        if not wrong and names[label] != _scene(key):
            label, wrong = UNLABELLED, f"its row says class {label}, {names[label]}, and its folder {_scene(key)}"
        listings[split].add(path, label, place, fault or wrong)
    for key, (split, _, wrong) in rows.items():
        listings[split].add(key, UNLABELLED, (0,) * width, wrong or "a row in the tables, but no such image")
    return listings, ignored
