"""ImageNet's labels: the development kit's ``meta.mat`` and ground truth, and Kaggle's two tables.

``meta.mat`` holds a struct array, a row a synset: its ILSVRC2012_ID, WNID and words among others. Those without children are the
classes. Line i of the ground truth is the ILSVRC2012_ID of validation image i.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from amdim.errors import UserError
from amdim.shards.tar_reader import small_files

LIMIT = 64 * 2**20  # bytes; the real kit unpacks to some 10 MB
DIRECTORY = "ILSVRC2012_devkit_t12"
KITS = (f"{DIRECTORY}.tar.gz", DIRECTORY)  # as published and unpacked; both will do
META, TRUTH = f"{DIRECTORY}/data/meta.mat", f"{DIRECTORY}/data/ILSVRC2012_validation_ground_truth.txt"
MAT_HEADER, MAT_TAG, COMPRESSED = 128, 8, 15  # bytes, bytes, type code of a compressed element


@dataclass(frozen=True)
class Labels:
    """``names``: words by wnid; ``val``: wnids by the stem of the image's file name, such as ILSVRC2012_val_00000001."""

    names: Mapping[str, str]
    val: Mapping[str, str]


def read_devkit(path: Path) -> Labels:
    """The kit as published (a ``.tar.gz``) or its directory; raises UserError when it is damaged or lacks a file."""
    files = {name: (path.parent / name).read_bytes() for name in (META, TRUTH)} if path.is_dir() else small_files(path, LIMIT)
    if missing := [name for name in (META, TRUTH) if name not in files]:
        raise UserError(f"{path}: no {missing[0]} in it; fetch it again")
    wnids, names = _synsets(path, files[META])
    try:
        numbers = [int(line) for line in files[TRUTH].split()]
        val = {f"ILSVRC2012_val_{line:08d}": wnids[number] for line, number in enumerate(numbers, 1)}
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: {TRUTH} is damaged ({error}); fetch it again") from None
    return Labels(names, val)


def read_kaggle(solution: Path, mapping: Path | None) -> Labels:
    """``LOC_val_solution.csv`` (ImageId, then the wnid and boxes) and, for the words, ``LOC_synset_mapping.txt``."""
    names = {}
    if mapping:
        names = dict(line.split(" ", 1) for line in mapping.read_text("utf-8-sig").splitlines() if " " in line)
    with solution.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if len(row) >= 2 and row[0] != "ImageId"]
    return Labels(names, {image: boxes.partition(" ")[0] for image, boxes, *_ in rows})


def _synsets(path: Path, data: bytes) -> tuple[dict[int, str], dict[str, str]]:
    """Wnids by ILSVRC2012_ID and words by wnid, of the synsets without children."""
    from scipy.io import loadmat  # a second, which other data sets need not spend

    try:
        _check_expansion(data)
        rows = loadmat(io.BytesIO(data), squeeze_me=True, variable_names=["synsets"])["synsets"]
        leaves = [row for row in rows if row["num_children"] == 0]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
        return wnids, {str(row["WNID"]): str(row["words"]) for row in leaves}
    except Exception as error:  # scipy's reader raises whatever the damage makes it raise
        raise UserError(f"{path}: {META} is damaged ({error or type(error).__name__}); fetch it again") from None


def _check_expansion(data: bytes) -> None:
    """Raises ValueError if compressed elements unpack to more than ``LIMIT``, for scipy believes what they say of their size."""
    at = MAT_HEADER
    order = "little" if data[126:128] == b"IM" else "big"
    while at + MAT_TAG <= len(data):
        kind, size = (int.from_bytes(data[at + i : at + i + 4], order) for i in (0, 4))  # type: ignore[arg-type]
        if kind == COMPRESSED:
            unpacked = zlib.decompressobj().decompress(data[at + MAT_TAG : at + MAT_TAG + size], LIMIT + 1)
            if len(unpacked) > LIMIT:
                raise ValueError(f"it unpacks to more than {LIMIT / 1e6:,.0f} MB")
        at += MAT_TAG + size
