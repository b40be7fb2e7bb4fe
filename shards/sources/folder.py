"""A directory of one's own images: ``SRC/<class>/**``, ``SRC/{train,val}/<class>/**``, or without classes.

Names that begin with a dot are passed over, links are followed.
Files are taken by their extension; what is in them is checked when they are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from amdim.errors import UsageError
from amdim.shards.decode import FORMATS, MAX_BYTES, Rejected
from amdim.shards.io_errors import failures_told
from amdim.shards.manifest import DEFAULTS
from amdim.shards.permutation import permutation
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import UNLABELLED, Encoding, Raw, Sample, Source

VAL_NAMES = ("val", "valid", "validation", "test")  # the first that is there is used, the others are ignored
WORDS = 12  # names in a note
KINDS = 5  # of files passed over, in a line


@dataclass(frozen=True)
class Layout:
    """Which split and class a file belongs to: None for neither. ``classes`` are sorted; ``own`` says that splits were given."""

    place: Callable[[str], tuple[str, str] | None]
    classes: tuple[str, ...]
    own: bool


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
    layout = _layout(src, counts, val, unlabeled)
    fraction = 0.0 if layout.own else (val or 0.0) if unlabeled else DEFAULTS["val"] if val is None else val
    splits, files = _list(src, layout, counts, fraction, seed)
    listed = sum(map(len, splits.values()))
    ignored = others + Counter({"in no split": counts.total() - listed})
    # The names and lengths of the files are part of what was asked for: with other images in the folder, a set is not it.
    recipe = {
        "val": fraction if val is None and not unlabeled and not layout.own else val,
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
    """Images by the first two directories they lie in, and other files by kind."""
    counts: Counter[tuple[str, ...]] = Counter()
    others: Counter[str] = Counter()
    for path in _relative(src):
        if is_image(path):
            counts[tuple(path.split("/", 2)[:-1])] += 1
        else:
            others[kind(path)] += 1
    return counts, others


def _relative(src: Path) -> Iterator[str]:
    start = len(str(src / "_")) - 1
    return (path[start:] for path in walk(src))


def _layout(src: Path, counts: Counter[tuple[str, ...]], val: float | None, unlabeled: bool) -> Layout:
    tops = {where[0] for where in counts if where}
    val_name = next((name for name in VAL_NAMES if name in tops), None) if "train" in tops else None
    if unlabeled:
        return Layout(lambda _: ("", ""), (), own=False)
    if val_name is not None:
        return _given_splits(src, counts, val_name, val)
    if not tops:
        raise UsageError(f"{src}: its images lie in no class directories; images without classes need --unlabeled")
    if len(tops) == 1 and not tops.isdisjoint(VAL_NAMES):
        raise UsageError(f"{src}: holds {min(tops)} but no train; name a directory with both, or with directories of classes")
    if tops == {"train"}:
        raise UsageError(f"{src}: holds train but no val; with --src {src / 'train'} a part of it is set apart as val")
    return Layout(lambda path: ("", path.partition("/")[0]) if "/" in path else None, tuple(sorted(tops)), own=False)


def _given_splits(src: Path, counts: Counter[tuple[str, ...]], val_name: str, val: float | None) -> Layout:
    if val is not None:
        raise UsageError(f"{src}: has a validation split of its own ({val_name}), so --val makes no sense")
    names = {"train": "train", val_name: "val"}
    found = [where for where in counts if len(where) == 2 and where[0] in names]
    if {where[0] for where in found} != names.keys():
        raise UsageError(f"{src}: no class directories below train and {val_name}; images without classes need --unlabeled")

    def place(path: str) -> tuple[str, str] | None:
        parts = path.split("/", 2)
        return (names[parts[0]], parts[1]) if len(parts) == 3 and parts[0] in names else None

    return Layout(place, tuple(sorted({where[1] for where in found})), own=True)


def _list(
    src: Path, layout: Layout, counts: Counter[tuple[str, ...]], fraction: float, seed: int
) -> tuple[dict[str, Listing], str]:
    """The splits, of each class the same ``fraction`` set apart at random, and a fingerprint of all files."""
    number = {name: label for label, name in enumerate(layout.classes)}
    held_out = _Chance(fraction, seed, counts, layout)
    splits = {"train": Listing(width=1), "val": Listing(width=1)}
    files = hashlib.sha256()
    for path in filter(is_image, _relative(src)):
        size = size_of(src / path)
        files.update(f"{path}\0{size}\0".encode("utf-8", "surrogateescape"))
        if place := layout.place(path):
            split = place[0] or ("val" if held_out(place[1]) else "train")
            splits[split].add(path, number.get(place[1], UNLABELLED), (size,))
    return {split: samples for split, samples in splits.items() if len(samples)}, files.hexdigest()[:16]


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
            mask[permutation(self.seed, f"val/{name}", count)[: round(self.fraction * count)]] = True
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


def _class_notes(src: Path, layout: Layout, splits: dict[str, Listing]) -> Iterable[str]:
    """Empty classes, and classes to test on that there is nothing of to learn from."""
    if layout.own:
        learnt, tested = (set(splits[split].labels()) for split in ("train", "val"))
        return _few([layout.classes[label] for label in sorted(tested - learnt)], "to validate only, with no image to train on")
    directories = {entry.name for entry in os.scandir(src) if _is_directory(entry) and not entry.name.startswith(".")}
    return _few(sorted(directories - set(layout.classes)), "without any image, so no class of the set")


def _few(names: list[str], what: str) -> Iterable[str]:
    if names:
        yield f"{', '.join(names[:WORDS])}{', …' if len(names) > WORDS else ''}: {what}"
