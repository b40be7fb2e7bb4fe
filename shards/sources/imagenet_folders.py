"""ImageNet extracted: ``train/<wnid>/*.JPEG``, with ``val/<wnid>/`` or a flat ``val/`` and its labels in a file of their own.

The folders may lie where Kaggle's archive has them, below ``ILSVRC/Data/CLS-LOC``; label files in ``--src`` or beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from amdim.errors import UsageError
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import Encoding, Source
from amdim.shards.sources.folder import is_image, kind, read_file, size_of, walk
from amdim.shards.sources.imagenet_devkit import KITS, Labels, read_devkit, read_kaggle
from amdim.shards.sources.wnid_classes import WNID, Classes

PARENTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")
SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


def find(src: Path) -> Path | None:
    """The directory of class directories to train on, if ``src`` has one."""
    return next((src / parent / "train" for parent in PARENTS if _has_wnids(src / parent / "train")), None)


def source(src: Path, train: Path, encoding: Encoding) -> Source:
    """The folders in ``src``; raises UsageError when validation images or their labels are missing."""
    val = train.with_name("val")
    if not val.is_dir():
        raise UsageError(f"{val}: missing beside {train.name}; put the validation images there, flat or in class folders")
    nested = _has_wnids(val)
    labels, origin = _labels(src, train.parent, required=None if nested else val)
    classes = Classes((path.name for path in train.iterdir() if WNID.fullmatch(path.name)), labels.names)
    listed, ignored = _nested(src, train, classes)
    held_out, more = _nested(src, val, classes) if nested else _flat(src, val, labels, classes)
    splits = {"train": listed, "val": held_out}
    recipe = {"files": f"{listed.fingerprint()} {held_out.fingerprint()}"}
    note = f"imagenet: recognised class folders in {train}, {len(classes.wnids):,} classes; labels of val from {origin or val}"
    return Source("imagenet", classes.names, splits, partial(read_file, src), encoding, recipe, ignored + more, note)


def _nested(src: Path, directory: Path, classes: Classes) -> tuple[Listing, Counter[str]]:
    """Images below class directories, and how many files are none or lie elsewhere."""
    listing, ignored = Listing(width=1), Counter[str]()
    for path in _files(src, directory):
        wnid, slash, _ = path.removeprefix(f"{directory.relative_to(src).as_posix()}/").partition("/")
        if slash and WNID.fullmatch(wnid) and is_image(path):
            label, fault = classes.label(wnid)
            listing.add(path, label, (size_of(src / path),), fault)
        else:
            ignored["in no class" if is_image(path) else kind(path)] += 1
    return listing, ignored


def _flat(src: Path, directory: Path, labels: Labels, classes: Classes) -> tuple[Listing, Counter[str]]:
    """Images labelled by the stems of their names, and as faults the labels without an image."""
    listing, missing, ignored = Listing(width=1), dict(labels.val), Counter[str]()
    for path in _files(src, directory):
        if is_image(path):
            label, fault = classes.label(missing.pop(Path(path).stem, None))
            listing.add(path, label, (size_of(src / path),), fault)
        else:
            ignored["in no class" if is_image(path) else kind(path)] += 1
    for stem in missing:
        listing.add(f"{directory.relative_to(src).as_posix()}/{stem}", place=(0,), fault="labelled, but there is no such image")
    return listing, ignored


def _files(src: Path, directory: Path) -> Iterator[str]:
    return (Path(path).relative_to(src).as_posix() for path in walk(directory))


def _has_wnids(directory: Path) -> bool:
    return directory.is_dir() and any(WNID.fullmatch(path.name) for path in directory.iterdir())


def _labels(src: Path, beside: Path, required: Path | None) -> tuple[Labels, Path | None]:
    """What the first label file found says, and which it is; ``required`` is the directory that cannot do without one."""
    for directory in (src, beside):
        for kit in KITS:
            if (directory / kit).exists():
                return read_devkit(directory / kit), directory / kit
        if (directory / SOLUTION).exists():
            mapping = directory / MAPPING
            return read_kaggle(directory / SOLUTION, mapping if mapping.exists() else None), directory / SOLUTION
    if required:
        raise UsageError(f"{required}: flat, and its labels are missing; put {KITS[0]} or Kaggle's {SOLUTION} into {src}")
    return Labels({}, {}), None
