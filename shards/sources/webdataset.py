"""WebDataset tars that exist already: which are for training, what their samples hold, and what is wrong with one.

A sample is the members that share a name up to the first dot behind the last slash: an image (jpg, jpeg, png, webp), its class as
a decimal number, in a ``cls`` member or in a ``json`` member as ``label``, ``cls`` or ``class``. Others are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from amdim.errors import UsageError, UserError
from amdim.shards import index
from amdim.shards.index import Entry
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import UNLABELLED, Encoding, Rejected, Source
from amdim.shards.sources.split_names import words_of
from amdim.shards.tar_reader import open_plain, read_span

NAMES = "classes.txt"
MAX_CLASSES = 2**20  # each gets a name, and a probe a row
ORDER = ("unlabeled", "val", "test", "train")  # of a tar whose name has several words


def splits(src: Path) -> dict[str, list[Path]]:
    """Return the tars in ``src`` by the words in their names, train where there is none; a test is val where that is missing."""
    if not src.is_dir():
        raise UsageError(f"{src}: no such directory; --src is the directory that holds the tars")
    tars = sorted(src.glob("*.tar"))
    found: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "unlabeled": []}
    for path in tars:
        words = words_of(path.stem)
        found[next((split for split in ORDER if split in words), "train")].append(path)
    if not found["val"]:  # as with directories: what there is to test on is what probes are tested on
        found["val"], found["test"] = found["test"], []
    if not found["train"]:
        raise UsageError(
            f"{src}: no tars to train on here{_elsewhere(src)}; --src holds files such as train-00000.tar and val-00000.tar"
        )
    for path in tars:
        open_plain(path).close()
    return {split: paths for split, paths in found.items() if paths}


def _elsewhere(src: Path) -> str:
    """What was seen instead of tars."""
    if packed := next((path for pattern in ("*.tar.*", "*.tgz") for path in sorted(src.glob(pattern))), None):
        return f", and {packed.name} is compressed: unpack it to a plain tar"
    below = next(iter(sorted(src.glob("*/*.tar"))), None)
    return f", but in {below.parent}" if below else ""


def class_names(src: Path, highest: int) -> tuple[str, ...]:
    """Names for labels up to ``highest``: the lines of ``classes.txt`` in ``src``, or numbers where there is no such file."""
    path = src / NAMES
    if not path.exists():
        return tuple(map(str, range(highest + 1)))
    names = tuple(path.read_text("utf-8-sig").split("\n"))
    names = names[:-1] if names[-1] == "" else names
    if highest >= len(names):
        raise UserError(f"{path}: {len(names):,} names, but a label is {highest}; it needs a line a class, from 0")
    return names


def labelled_image(file: BinaryIO, entry: Entry) -> tuple[index.Member, int]:
    """The image of a sample and its label; raises Rejected when it has none, or is no plain sample."""
    if fault := next((member.fault for member in entry if member.fault), ""):
        raise Rejected(fault)
    suffixes = [member.suffix.lower() for member in entry]
    if len(set(suffixes)) < len(suffixes):
        raise Rejected("its key is there twice")
    try:
        image, label = index.image_of(entry), index.label_of(file, entry)
    except UserError as error:
        raise Rejected(str(error)) from None
    except ValueError as error:
        raise Rejected(f"its label is no number: {error}") from None
    if not UNLABELLED <= label < MAX_CLASSES:
        raise Rejected(f"its label is out of range: {label}")
    return image, label


def source(src: Path, encoding: Encoding) -> Source:
    """The tars in ``src``, to be written anew; raises UsageError when there are none, UserError for a damaged one."""
    tars = splits(src)
    files = [path for paths in tars.values() for path in paths]
    listings = {split: _list(paths, files) for split, paths in tars.items()}
    highest = max(max(listing.labels(), default=UNLABELLED) for listing in listings.values())
    recipe = {"files": " ".join(listing.fingerprint() for listing in listings.values())}
    read = partial(read_span, src, [path.name for path in files])
    note = f"webdataset: {len(files):,} tars in {src}, to be written anew"
    return Source("webdataset", class_names(src, highest), listings, read, encoding, recipe, note=note)


def _list(tars: Sequence[Path], files: Sequence[Path]) -> Listing:
    listing = Listing(width=3)
    for tar in tars:
        with tar.open("rb") as file:
            for entry in index.scan_any(tar):
                path = f"{tar.name}/{index.key(entry)}"
                try:
                    image, label = labelled_image(file, entry)
                    listing.add(path, label, (files.index(tar), image.offset, image.size))
                except Rejected as error:
                    listing.add(path, UNLABELLED, (0, 0, 0), str(error))
    return listing
