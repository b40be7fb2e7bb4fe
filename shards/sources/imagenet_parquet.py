"""ImageNet as Hugging Face publishes it: ``data/train-*.parquet`` and ``data/validation-*.parquet``.

A row holds the encoded image (struct ``image``: ``bytes``, ``path``) and ``label``, the place of its wnid among all in order. A
parquet file gives rows by the group, a hundred images or more, and not one at a time. To take them in random order, the encoded
images of each file are first copied, one after the other, into a plain file in the output directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amdim.errors import UsageError, UserError
from amdim.shards.atomic import atomic
from amdim.shards.disk_space import check_space
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import UNLABELLED, Encoding, Raw, Rejected, Sample, Source, unread
from amdim.shards.tar_reader import read_bytes

SPLITS = {"train": "train", "validation": "val", "val": "val"}
ROWS = 100  # read at a time
TOLD = 10  # lines about what has been copied
TRAILER, MAX_FOOTER = 8, 2**26  # bytes: the footer's length and a mark, which follow it; what is read of a footer at most
CLASSES = 1000  # where the files do not name them


def find(src: Path) -> dict[str, list[Path]]:
    """The files of each split in ``src`` or ``src/data``, in order; empty unless some are to train on."""
    for directory in (src / "data", src):
        found: dict[str, list[Path]] = {}
        for prefix, split in SPLITS.items():
            found.setdefault(split, []).extend(sorted(directory.glob(f"{prefix}-*.parquet")))
        if found["train"]:
            return found
    return {}


def source(src: Path, files: Mapping[str, Sequence[Path]], encoding: Encoding) -> Source:
    """The rows of ``files``; raises UsageError without pyarrow or a validation split, UserError for a damaged file."""
    if not files["val"]:
        raise UsageError(f"{files['train'][0].parent}: validation-*.parquet is missing beside train-*.parquet; fetch it too")
    classes = _class_names(files["train"][0])
    names = [path.relative_to(src).as_posix() for split in files for path in files[split]]
    splits = {split: _list(src, names, files[split], len(classes)) for split in ("train", "val")}
    recipe = {"files": " ".join([*(listing.fingerprint() for listing in splits.values()), _identity(src, names)])}
    note = f"imagenet: recognised {len(names):,} parquet files; their images are copied into the output directory while it builds"
    return Source("imagenet", classes, splits, unread, encoding, recipe, note=note, unpack=partial(_unpack, src, names))


def _list(src: Path, names: Sequence[str], files: Sequence[Path], classes: int) -> Listing:
    """A sample a row; its place is (number of the file in ``names``, row)."""
    listing = Listing(width=2)
    for path in files:
        name = path.relative_to(src).as_posix()
        labels = (label for batch in _batches(path, ["label"]) for label in batch.column(0).to_pylist())
        for row, label in enumerate(labels):
            known = isinstance(label, int) and 0 <= label < classes
            fault = "" if known else f"its label {label} is none of {classes:,} classes"
            listing.add(f"{name}/{row}", label if known else UNLABELLED, (names.index(name), row), fault)
    return listing


def _class_names(path: Path) -> tuple[str, ...]:
    """The names in the file's ``huggingface`` metadata; numbers where it has none."""
    with _opened(path) as file:
        metadata = file.schema_arrow.metadata or {}
        try:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            return tuple(map(str, features["label"]["names"]))
        except (KeyError, TypeError, ValueError):
            return tuple(map(str, range(CLASSES)))


def _unpack(src: Path, names: Sequence[str], directory: Path) -> Callable[[Sample], Raw]:
    """Copies the images of every file into ``directory``, except those an earlier build has copied."""
    stems = [_stem(number, src / name) for number, name in enumerate(names)]
    todo = [(src / name, stem) for name, stem in zip(names, stems, strict=True) if not (directory / f"{stem}.npy").exists()]
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        if path.stem not in stems:  # of a file that is another now
            path.unlink()
    check_space(directory.parent, sum(path.stat().st_size for path, _ in todo))
    for done, (path, stem) in enumerate(todo, 1):
        with atomic(directory / f"{stem}.bin") as file:
            ends = [0, *np.cumsum([file.write(data) for data in _images(path)], dtype=np.int64).tolist()]
        with atomic(directory / f"{stem}.npy") as file:
            np.save(file, np.array(ends, np.int64), allow_pickle=False)
        if done * TOLD // len(todo) > (done - 1) * TOLD // len(todo):
            print(f"imagenet: copied {done:,} of {len(todo):,} parquet files", file=sys.stderr)
    return partial(_read, directory, stems)


def _stem(number: int, path: Path) -> str:
    """What the copy of a file is called: a file that was changed in any way is copied again."""
    return f"{number:05d}-{path.stat().st_mtime_ns}-{_identity(path.parent, [path.name])}"


def _identity(src: Path, names: Sequence[str]) -> str:
    """A fingerprint of lengths and footers, which say where and how long everything in the files is."""
    digest = hashlib.sha256()
    for name in names:
        with (src / name).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TRAILER))
            length = int.from_bytes(file.read(4), "little") + TRAILER
            file.seek(max(0, size - length))
            digest.update(f"{name}\0{size}\0".encode() + file.read(MAX_FOOTER))
    return digest.hexdigest()[:16]


def _images(path: Path) -> Iterator[bytes]:
    for batch in _batches(path, ["image.bytes"]):
        for image in batch.column(0):
            yield image["bytes"].as_py() or b""


def _read(directory: Path, stems: Sequence[str], sample: Sample) -> Raw:
    if sample.fault:
        raise Rejected(sample.fault)
    number, row = sample.place
    start, end = _ends(directory / f"{stems[number]}.npy")[row : row + 2].tolist()
    return Raw(read_bytes(directory / f"{stems[number]}.bin", start, end - start))


@lru_cache(maxsize=512)
def _ends(path: Path) -> NDArray[np.int64]:
    return np.load(path, allow_pickle=False)


def _batches(path: Path, columns: list[str]) -> Iterator[Any]:
    with _opened(path) as file:
        yield from file.iter_batches(ROWS, columns=columns)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The parquet file; turns what pyarrow raises into UserError, and its absence into UsageError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"{path}: parquet needs pyarrow, which is not installed; `{sys.executable} -m pip install pyarrow`"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no readable parquet file with image and label ({reason[:200]}); fetch it again") from None
