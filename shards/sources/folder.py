"""A directory of one's own images: ``SRC/<class>/**``, ``SRC/{train,val,test}/<class>/**``, or without classes.

Names that begin with a dot are passed over, links are followed.
Files are taken by their extension; what is in them is checked when they are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from amdim.errors import UsageError
from amdim.shards.images.decode import FORMATS, MAX_BYTES
from amdim.shards.io_errors import failures_told
from amdim.shards.manifest import DEFAULTS
from amdim.shards.permutation import permutation
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import UNLABELLED, Encoding, Raw, Rejected, Sample, Source
from amdim.shards.sources.folder_layout import DEPTH, Layout, find_layout

WORDS = 12  # names in a note
KINDS = 5  # of files passed over, in a line


def source(src: Path, encoding: Encoding, seed: int, val: float | None, unlabeled: bool) -> Source:
    """The images under ``src``; ``val`` is the fraction of each class set apart where ``src`` has no validation split.

    The files are listed twice, first to see how they are laid out, so that no list of them all is needed; see ``Listing``.
    Raises UsageError when ``src`` is no directory, holds no images, or is laid out in none of the three ways.
    """
    if not src.is_dir():
        raise UsageError(f"{src}: no such directory; --src is the directory that holds the images")
    counts, others = _survey(src)
    if not counts:
        found = f"of {others.total():,} files{': ' if others else ''}{kinds(others)}"
        raise UsageError(f"{src}: no images in it ({found}); --src is the directory that holds the images")
    layout = find_layout(src, counts, val, unlabeled)
    fraction = 0.0 if layout.splits else (val or 0.0) if unlabeled else DEFAULTS["val"] if val is None else val
    splits, files = _list(src, layout, counts, fraction, seed)
    listed = sum(map(len, splits.values()))
    ignored = others + Counter({"in no split": counts.total() - listed})
    # The names and lengths of the files are part of what was asked for: with other images in the folder, a set is not it.
    recipe = {
        "val": fraction if val is None and not unlabeled and not layout.splits else val,
        "unlabeled": unlabeled,
        "files": files,
    }
    note = _note(src, layout, splits, others)
    return Source("folder", layout.classes, splits, partial(read_file, src), encoding, recipe, ignored, note)


def is_image(path: str) -> bool:
    """Whether a file's extension promises an image."""
    return Image.registered_extensions().get(path[path.rfind(".") :].lower()) in FORMATS


def kind(path: str) -> str:
    """What a file that is passed over is counted as: its extension."""
    suffix = PurePosixPath(path).suffix.lower()
    return suffix if suffix[1:].isalnum() else "without extension"


def kinds(counts: Counter[str]) -> str:
    """The commonest kinds and how many there are of each, in a few words."""
    told = [f"{name} {count:,}" for name, count in counts.most_common(KINDS)]
    return ", ".join(told + ["…"] * (len(counts) > KINDS))


def read_file(root: Path, sample: Sample) -> Raw:
    """The bytes of one file, whatever is in them; raises Rejected when there is no reading it.

    ``place``, if the sample has one, is the length the file had when it was listed: one that is being copied, or was changed
    since, is not what was asked for.
    """
    if sample.fault:
        raise Rejected(sample.fault)
    path = root / sample.path
    with failures_told(path, root), open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("not a regular file")
        if status.st_size > MAX_BYTES:
            raise Rejected("too large")
        data = file.read(MAX_BYTES)
    if sample.place and sample.place != (len(data),):
        raise Rejected(f"changed: {sample.place[0]} bytes when it was listed, {len(data)} when it was read")
    return Raw(data)


def walk(directory: str | Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """All below ``directory`` but directories, in sorted order; links are followed, but not back to a directory one is in."""
    status = Path(directory).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(directory) as found:
        entries = sorted((entry.name, entry.path, _is_directory(entry)) for entry in found if not entry.name.startswith("."))
    for _, path, is_directory in entries:
        if is_directory:
            yield from walk(path, above | {here})
        else:
            yield path


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: worth a complaint when it is read
        return False


def _open_at_once(path: str, flags: int) -> int:
    """A pipe would keep one waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def _survey(src: Path) -> tuple[Counter[tuple[str, ...]], Counter[str]]:
    """Return how many images lie in each of the first directories, and other files by kind."""
    counts: Counter[tuple[str, ...]] = Counter()
    others: Counter[str] = Counter()
    for path in _relative(src):
        if is_image(path):
            counts[tuple(path.split("/", DEPTH)[:-1])] += 1
        else:
            others[kind(path)] += 1
    return counts, others


def _relative(src: Path) -> Iterator[str]:
    start = len(str(src / "_")) - 1
    return (path[start:] for path in walk(src))


def _list(
    src: Path, layout: Layout, counts: Counter[tuple[str, ...]], fraction: float, seed: int
) -> tuple[dict[str, Listing], str]:
    """The splits, of each class the same ``fraction`` set apart at random, and a fingerprint of all files."""
    number = {name: label for label, name in enumerate(layout.classes)}
    is_held_out = _Chance(fraction, seed, counts, layout)
    splits = {split: Listing(width=1) for split in ("train", "val", "test", "unlabeled")}
    files = hashlib.sha256()
    for path in filter(is_image, _relative(src)):
        size = size_of(src / path)
        files.update(f"{path}\0{size}\0".encode("utf-8", "surrogateescape"))
        if place := layout.place(path):
            split = place[0] or ("val" if is_held_out(place[1]) else "train")
            splits[split].add(path, number.get(place[1], UNLABELLED), (size,))
    return {split: samples for split, samples in splits.items() if len(samples)}, files.hexdigest()[:16]


def held_out(fraction: float, count: int) -> int:
    """Return how many of a class's images are set apart: its share, but of two or more at least one, and never all."""
    return min(max(1, round(fraction * count)), count - 1) if fraction and count > 1 else 0


class _Chance:
    """Whether the next file of a class is one of those set apart."""

    def __init__(self, fraction: float, seed: int, counts: Counter[tuple[str, ...]], layout: Layout) -> None:
        self.fraction, self.seed = fraction, seed
        self.counts: Counter[str] = Counter()
        for where, count in counts.items():
            self.counts["" if not layout.classes else where[0] if where else ""] += count
        self.chosen: dict[str, Iterator[bool]] = {}

    def __call__(self, name: str) -> bool:
        if name not in self.chosen:
            mask = np.zeros(count := self.counts[name], bool)
            mask[permutation(self.seed, f"val/{name}", count)[: held_out(self.fraction, count)]] = True
            self.chosen[name] = iter(mask)
        return bool(next(self.chosen[name], False))  # more than were counted: added since, to training


def size_of(path: Path) -> int:
    """The length of a file; 0 if it cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it will say what is wrong


def _note(src: Path, layout: Layout, splits: dict[str, Listing], others: Counter[str]) -> str:
    """What a person may not have meant, in a line."""
    notes = [*_class_notes(src, layout, splits)] if layout.classes else []
    if others.total() > (listed := sum(map(len, splits.values()))):
        notes.append(
            f"{others.total():,} files ({kinds(others)}) have no image's name and are passed over, beside {listed:,} images"
        )
    return f"warning: {src}: {'; '.join(notes)}" if notes else ""


def _class_notes(src: Path, layout: Layout, splits: dict[str, Listing]) -> Iterator[str]:
    """Yield what is unexpected about classes: empty ones, and those that can only be learnt from, or only be tested on."""
    labels = {split: set(samples.labels()) for split, samples in splits.items()}
    for split, tested in labels.items():
        if split in ("val", "test"):
            missing = [layout.classes[label] for label in sorted(labels["train"] - tested)]
            yield from _few(
                missing, f"{len(missing):,} of {len(layout.classes):,} classes, without an image in {split} to test on"
            )
            unseen = [layout.classes[label] for label in sorted(tested - labels["train"])]
            yield from _few(unseen, f"in {split} only, with no image to train on")
    for top in layout.left_out:
        yield f"{top}: holds no class directories, and is left out"
    if not layout.splits:
        directories = {entry.name for entry in os.scandir(src) if _is_directory(entry) and not entry.name.startswith(".")}
        yield from _few(sorted(directories - set(layout.classes)), "without any image, so no class of the set")


def _few(names: list[str], what: str) -> Iterator[str]:
    if names:
        yield f"{', '.join(names[:WORDS])}{', …' if len(names) > WORDS else ''}: {what}"
