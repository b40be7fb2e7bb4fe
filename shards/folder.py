"""A directory of one's own images: ``SRC/<class>/**``, ``SRC/{train,val}/<class>/**``, or without classes.

Names that begin with a dot are passed over. Files are taken by their extension; what is in them is checked when they are read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from errors import UsageError

from .decode import FORMATS, Rejected
from .manifest import DEFAULTS
from .order import permutation
from .source import Encoding, Raw, Sample, Source

VAL_NAMES = ("val", "valid", "validation", "test")  # the first that is there is used, the others are ignored

Files = dict[str, list[str]]  # class name to paths relative to the source


def source(src: Path, encoding: Encoding, seed: int, val: float | None, unlabeled: bool) -> Source:
    """The images under ``src``; ``val`` is the fraction of each class set apart where ``src`` has no validation split.

    Raises UsageError when ``src`` is no directory, holds no images, or is laid out in none of the three ways.
    """
    if not src.is_dir():
        raise UsageError(f"{src}: no such directory; --src is the directory that holds the images")
    listed = [Path(path).relative_to(src).as_posix() for path in walk(src)]
    images = [path for path in listed if is_image(path)]
    if not images:
        raise UsageError(f"{src}: no images in it (of {len(listed)} files); --src is the directory that holds the images")
    classes: tuple[str, ...] = ()
    if unlabeled:
        splits = _cut({"": images}, {"": -1}, val or 0.0, seed)
    elif (val_name := _val_name(images)) is not None:
        classes, splits = _given_splits(src, images, val_name, val)
    else:
        val = DEFAULTS["val"] if val is None else val
        classes, splits = _class_folders(src, images, val, seed)
    ignored = len(listed) - sum(map(len, splits.values()))
    # The names of the files are part of what was asked for: with other images in the folder, a finished set is not it.
    names = hashlib.sha256("\0".join(images).encode(errors="surrogateescape")).hexdigest()
    recipe = {"val": val, "unlabeled": unlabeled, "files": names[:16]}
    return Source("folder", classes, splits, partial(read_file, src), encoding, recipe, ignored)


def is_image(path: str) -> bool:
    """Whether a file's extension promises an image."""
    return Image.registered_extensions().get(Path(path).suffix.lower()) in FORMATS


def read_file(root: Path, sample: Sample) -> Raw:
    """The bytes of one file, whatever is in them; raises Rejected when there is no reading it."""
    if sample.fault:
        raise Rejected(sample.fault)
    try:
        return Raw((root / sample.path).read_bytes())
    except OSError as error:
        raise Rejected(f"unreadable: {error.strerror}") from None


def walk(directory: str | Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Files below ``directory`` in sorted order; links are followed, but not back to a directory one is in."""
    status = Path(directory).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from walk(entry.path, above | {here})
        elif entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists()):  # a dead link is worth a complaint
            yield entry.path


def _val_name(images: Sequence[str]) -> str | None:
    """The validation directory, if ``src`` holds ``train`` and such a one."""
    tops = {path.partition("/")[0] for path in images if "/" in path}
    return next((name for name in VAL_NAMES if name in tops), None) if "train" in tops else None


def _given_splits(
    src: Path, images: Sequence[str], val_name: str, val: float | None
) -> tuple[tuple[str, ...], Mapping[str, list[Sample]]]:
    if val is not None:
        raise UsageError(f"{src}: has a validation split of its own ({val_name}), so --val makes no sense")
    train, held_out = _by_class(images, "train/"), _by_class(images, f"{val_name}/")
    classes = tuple(sorted(train.keys() | held_out.keys()))
    if not train or not held_out:
        raise UsageError(f"{src}: no class directories below train and {val_name}; images without classes need --unlabeled")
    number = {name: label for label, name in enumerate(classes)}
    return classes, {"train": _samples(train, number), "val": _samples(held_out, number)}


def _class_folders(src: Path, images: Sequence[str], val: float, seed: int) -> tuple[tuple[str, ...], Mapping[str, list[Sample]]]:
    files = _by_class(images, "")
    if not files:
        raise UsageError(f"{src}: its images lie in no class directories; images without classes need --unlabeled")
    if files.keys() == {"train"}:
        raise UsageError(f"{src}: holds train but no val; with --src {src / 'train'} a part of it is set apart as val")
    classes = tuple(sorted(files))
    return classes, _cut(files, {name: label for label, name in enumerate(classes)}, val, seed)


def _by_class(images: Sequence[str], prefix: str) -> Files:
    """Images at least one directory below ``prefix``, by the name of that directory."""
    files: Files = {}
    for path in images:
        name, slash, _ = path.removeprefix(prefix).partition("/")
        if path.startswith(prefix) and slash:
            files.setdefault(name, []).append(path)
    return files


def _cut(files: Files, number: Mapping[str, int], val: float, seed: int) -> Mapping[str, list[Sample]]:
    """Sets the fraction ``val`` of each class apart, at random."""
    train: Files = {}
    held_out: Files = {}
    for name, paths in files.items():
        count = round(val * len(paths))
        chosen = set(permutation(seed, f"val/{name}", len(paths))[:count].tolist())
        held_out[name] = [path for i, path in enumerate(paths) if i in chosen]
        train[name] = [path for i, path in enumerate(paths) if i not in chosen]
    splits = {"train": _samples(train, number), "val": _samples(held_out, number)}
    return {split: samples for split, samples in splits.items() if samples}


def _samples(files: Files, number: Mapping[str, int]) -> list[Sample]:
    return [Sample(path, number[name]) for name, paths in files.items() for path in paths]
