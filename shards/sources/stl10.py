"""STL-10 (Coates, Lee, Ng 2011): 96×96 RGB, 5,000 labelled images to train on, 8,000 to test, 100,000 unlabelled; ten classes.

``train_X.bin`` and its like hold pixels, 27,648 bytes an image, a plane a colour, each column by column; ``train_y.bin`` a byte a
label, from 1. The unlabelled images are a split of their own, ``unlabeled``, which pretraining uses beside ``train``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from amdim.errors import UsageError, UserError
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import UNLABELLED, Source, unread
from amdim.shards.sources.fixed_records import Layout, files_of, locate, read_record, unpack
from amdim.shards.sources.published_files import Published, cache, fetch
from amdim.shards.tar_reader import damage_told

PIXELS = 3 * 96 * 96
LAYOUT = Layout((3, 96, 96), (2, 1, 0))
# The MD5 is the one torchvision's datasets/stl10.py lists; the authors publish none.
ARCHIVE = Published("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb")
DIRECTORY, NAMES = "stl10_binary", "class_names.txt"
IMAGES = {"train": ("train_X.bin", 5_000), "val": ("test_X.bin", 8_000), "unlabeled": ("unlabeled_X.bin", 100_000)}
LABELS = {"train": "train_y.bin", "val": "test_y.bin"}
PICTURES = tuple(name for name, _ in IMAGES.values())
LONGEST = {name: count * PIXELS for name, count in IMAGES.values()} | {"train_y.bin": 5_000, "test_y.bin": 8_000, NAMES: 10_000}


def source(src: Path | None) -> Source:
    """From ``src``, else from the published address; raises UsageError if ``src`` lacks the set, UserError if it is damaged."""
    otherwise = f"fetch it elsewhere and pass SRC=/path/to/{ARCHIVE.name}"
    path = _find(src) if src else fetch(ARCHIVE, cache("stl10"), otherwise)
    lengths, small = _survey(path)
    classes = tuple(small[NAMES].decode(errors="replace").split())
    splits = {split: _list(path, split, lengths, small, len(classes)) for split in IMAGES}
    recipe = {"files": " ".join(listing.fingerprint() for listing in splits.values())}
    note = f"stl10: {path}"
    if path.is_dir():
        return Source("stl10", classes, splits, partial(read_record, path, PICTURES, LAYOUT), None, recipe, note=note)
    needed = partial(unpack, path, LONGEST, LAYOUT, PICTURES)
    return Source("stl10", classes, splits, unread, None, recipe, note=note, unpack=needed)


def _find(src: Path) -> Path:
    if path := locate(src, ARCHIVE.name, DIRECTORY, PICTURES):
        return path
    raise UsageError(f"{src}: no {ARCHIVE.name} here, nor what it unpacks to; --src is that file, or the directory that holds it")


def _survey(path: Path) -> tuple[dict[str, int], dict[str, bytes]]:
    """Lengths of the files of pixels, and the contents of the others."""
    lengths, small = {}, {}
    with damage_told(path):
        for found in files_of(path, LONGEST):
            lengths[found.name] = found.size
            if found.name not in PICTURES:
                small[found.name] = found.content.read(found.size)
    if missing := [name for name in LONGEST if name not in lengths]:
        raise UserError(f"{path}: no {missing[0]} in it; fetch it again")
    return lengths, small


def _list(path: Path, split: str, lengths: dict[str, int], small: dict[str, bytes], classes: int) -> Listing:
    """A sample's place is (number of its file, offset of its pixels)."""
    name, _ = IMAGES[split]
    count, rest = divmod(lengths[name], PIXELS)
    labels = small[LABELS[split]] if split in LABELS else bytes(count)
    if rest or len(labels) != count:
        raise UserError(f"{path}: {name} has {lengths[name]:,} bytes, which is not {len(labels):,} images; fetch it again")
    listing = Listing(width=2)
    for row, number in enumerate(labels):
        wrong = split in LABELS and not 1 <= number <= classes
        label = number - 1 if split in LABELS and not wrong else UNLABELLED
        fault = f"its label {number} is none of 1 to {classes}" if wrong else ""
        listing.add(f"{name}/{row}", label, (PICTURES.index(name), row * PIXELS), fault)
    return listing
